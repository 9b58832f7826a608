"""The fields of a request that switch thinking, by what may be sent to the model (contract 2.3, 2.5, T14 to T16)."""

from __future__ import annotations

from batchrun.dialects.base import ModelRules
from batchrun.errors import ErrorKind, ProviderError
from batchrun.messages import JsonValue, Thinking


def thinking_fields(model: str, thinking: Thinking | None, rules: ModelRules) -> dict[str, JsonValue]:
    """The fields to send, in the compat spelling; none where the job says nothing.

    What the job asks for is either put into the request, or true of the model anyway, or refused: raises
    ProviderError(INVALID) rather than buying an answer of the wrong kind.
    """
    if thinking is None:
        return {}
    _check(model, thinking, rules)
    fields: dict[str, JsonValue] = {}
    if rules.thinking_switch == "thinking":
        fields["thinking"] = {"type": "enabled" if thinking.enabled else "disabled"}
    elif rules.thinking_switch is not None and rules.thinking != "never":
        fields[rules.thinking_switch] = thinking.enabled
    if thinking.budget is not None:
        fields["thinking_budget"] = thinking.budget
    return fields


def _check(model: str, thinking: Thinking, rules: ModelRules) -> None:
    if rules.thinking == "never" and thinking.enabled:
        raise _refused(f"{model} can't think.", "Leave `thinking` out, or choose a model that thinks.")
    if rules.thinking == "always" and not thinking.enabled:
        raise _refused(
            f"{model} always thinks here; there is nothing to switch it off with.",
            "Leave `thinking` out, or choose a model that answers directly.",
        )
    if rules.thinking == "switchable" and rules.thinking_switch is None:
        raise _refused(
            f"{model} has a thinking switch that the catalogue doesn't name.",
            "Add `thinking_switch` to the model's entry, or leave `thinking` out.",
        )
    if thinking.budget is not None:
        _check_budget(model, thinking.enabled, thinking.budget, rules)


def _check_budget(model: str, enabled: bool, budget: int, rules: ModelRules) -> None:
    if not rules.thinking_budget:
        raise _refused(f"{model} takes no thinking budget.", "Leave the budget out.")
    if not enabled:
        raise _refused("A thinking budget is set, but thinking is off.", "Leave the budget out, or switch thinking on.")
    if budget < 1:
        raise _refused(f"The thinking budget is {budget}; it counts tokens.", "Write 1 or more, or leave it out.")


def _refused(message: str, remedy: str) -> ProviderError:
    return ProviderError(ErrorKind.INVALID, message, remedy=remedy)
