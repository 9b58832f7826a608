"""What the calls of one job share: prepared once in each process, from the job's row, the catalogue and the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from batchrun import __version__
from batchrun.bodies import last_role, written_messages, written_params, written_texts, written_thinking
from batchrun.catalogue import Catalogue, Endpoint, Model
from batchrun.continuing import Continuing, Prefix
from batchrun.dialects import DIALECTS
from batchrun.dialects.base import Dialect
from batchrun.errors import ProviderError, UsageError
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.jobfile.template import Template
from batchrun.messages import (
    ChatRequest,
    ImagePart,
    JsonValue,
    Message,
    Part,
    Source,
    TextPart,
    Thinking,
    WrittenMessage,
)
from batchrun.pricing import upper_bound
from batchrun.retries import Policy
from batchrun.settings import Settings

ENVELOPE_TOKENS = 64
"""Room for what a chat template adds around each message: role marks, begin and end of turn."""
_NOTHING: Mapping[str, JsonValue] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    first_token: timedelta
    silence: timedelta
    """Between two pieces of content; keep-alives don't count, reasoning does."""
    total: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    dialect: Dialect
    url: str
    headers: Mapping[str, str] = field(repr=False)
    """With the key where calls are made; it exists in memory only."""
    model: Model
    system: Template | None
    prompt: Template | None
    """None for a job of written requests: an item's variables are the body of its request then, see `bodies`."""
    params: Mapping[str, JsonValue]
    """Those of the job, as `thinking` is; a written request has its own."""
    thinking: Thinking | None
    stream: bool
    media_root: Path | None
    timeouts: Timeouts
    policy: Policy
    continuing: Continuing | None
    """Which answers are continued where they stopped; None for none."""
    price_ids: Mapping[tuple[datetime, int | None], int]
    """Rows of the `prices` table by the start of the price and the end of the tier."""
    key_name: str | None
    """The environment variable that holds the key; None where none is sent."""
    secrets: tuple[str, ...] = field(repr=False)
    """Texts that must not be stored or shown."""

    def texts(self, variables: Mapping[str, JsonValue]) -> list[str]:
        """All that the model may read: the rendered system message, if there is one, and prompt; or the messages and
        fields of a written request. Raises TemplateError."""
        if self.prompt is None:
            return written_texts(variables)
        templates = (self.prompt,) if self.system is None else (self.system, self.prompt)
        return [template.render(variables) for template in templates]

    def request(self, variables: Mapping[str, JsonValue], images: Sequence[Source]) -> ChatRequest:
        """The request of an item. Raises TemplateError."""
        messages: list[Message | WrittenMessage]
        if self.prompt is None:
            messages = [*written_messages(variables, images)]
        else:
            *system, prompt = self.texts(variables)
            parts: tuple[Part, ...] = (*(ImagePart(source=image) for image in images), TextPart(text=prompt))
            messages = [Message(role="system", parts=(TextPart(text=text),)) for text in system]
            messages.append(Message(role="user", parts=parts))
        params, thinking = self.asked(variables)
        return ChatRequest(
            model=self.model.id, messages=tuple(messages), params=params, thinking=thinking, stream=self.stream
        )

    def asked(self, variables: Mapping[str, JsonValue]) -> tuple[Mapping[str, JsonValue], Thinking | None]:
        """The parameters of an item's request, and what it says about thinking."""
        if self.prompt is not None:
            return self.params, self.thinking
        return written_params(variables), written_thinking(variables, by_default=self.model.thinks_by_default)

    def continuing_of(self, variables: Mapping[str, JsonValue]) -> Continuing | None:
        """Which answers to the request with these variables are continued: not those of a written one that thinks, or
        that ends with a beginning of its own."""
        if self.continuing is None or self.prompt is not None:
            return self.continuing
        thinks = self.model.may_think(self.asked(variables)[1])
        return None if thinks or last_role(variables) == "assistant" else self.continuing

    @property
    def currency(self) -> str | None:
        price = self.model.price_at(datetime.now(UTC))
        return None if price is None else price.currency

    @property
    def input_limit(self) -> int | None:
        if self.prompt is None:  # each request chooses whether it thinks
            limits = [self.model.input_limit(thinks) for thinks in (True, False)]
            return max((limit for limit in limits if limit is not None), default=None)
        thinks = self.model.thinks_by_default if self.thinking is None else self.thinking.enabled
        return self.model.input_limit(thinks)

    def input_bound(self, texts: list[str], images: int) -> int | None:
        """Most input tokens of a request: a token is at least a byte of text; a picture has the model's maximum.

        None where the model's limits aren't known.
        """
        words = sum(len(text.encode()) for text in texts) + ENVELOPE_TOKENS * (len(texts) + 1)
        limit = self.input_limit
        if images and self.model.max_image_tokens is None:
            return limit
        bound = words + images * (self.model.max_image_tokens or 0)
        return bound if limit is None else min(bound, limit)

    def continued_bound(self, input_bound: int | None, prefix: Prefix | None) -> int | None:
        """The same with a text sent along, which is input too (contract 8.7)."""
        if input_bound is None or prefix is None:
            return input_bound
        bound = input_bound + len(prefix.text.encode()) + ENVELOPE_TOKENS
        return bound if self.input_limit is None else min(bound, self.input_limit)

    def output_bound(self, variables: Mapping[str, JsonValue] = _NOTHING) -> int | None:
        """Most output tokens of the request with these variables, which only a written one depends on."""
        params, thinking = self.asked(variables)
        # A vendor may obey only one of the two.
        named = [params.get(name) for name in ("max_tokens", "max_completion_tokens")]
        limits = [limit for limit in named if isinstance(limit, int)]
        return self.model.output_bound(max_tokens=max(limits, default=None), thinking=thinking)

    def most(self, input_bound: int | None, output_bound: int | None) -> Decimal | None:
        """The most that a call can cost; None where the price or a limit isn't known (design: a budget needs it)."""
        price = self.model.price_at(datetime.now(UTC))
        if price is None or input_bound is None or output_bound is None:
            return None
        return upper_bound(price, input_tokens=input_bound, output_tokens=output_bound)


def prepare(
    spec: JobSpec,
    catalogue: Catalogue,
    *,
    settings: Settings | None = None,
    media_root: Path | None = None,
    price_ids: Mapping[tuple[datetime, int | None], int] | None = None,
) -> Plan:
    """A job's plan. Without `settings` it has no key: good for checking and counting, not for calls.

    Raises CatalogueError where the model doesn't exist there, UsageError where the job asks for what the model can't
    do or the key is missing.
    """
    endpoint = catalogue.endpoint(spec.provider)
    model = catalogue.model(spec.provider, spec.model)
    dialect = DIALECTS[endpoint.dialect](endpoint.error_table)
    thinking = spec.thinking
    plan = Plan(
        name=spec.name,
        dialect=dialect,
        url=endpoint.base_url + dialect.path(model.rules),
        headers=headers_of(endpoint, dialect, settings, stream=spec.stream),
        model=model,
        system=None if spec.system is None else Template(spec.system),
        prompt=None if spec.prompt is None else Template(spec.prompt),
        params=spec.params,
        thinking=None if thinking is None else Thinking(enabled=thinking.enabled, budget=thinking.budget),
        stream=spec.stream,
        media_root=media_root,
        timeouts=Timeouts(
            first_token=spec.timeouts.first_token, silence=spec.timeouts.silence, total=spec.timeouts.total
        ),
        policy=Policy(attempts=spec.retry.attempts, max_elapsed=spec.retry.max_elapsed),
        continuing=continuing(spec),
        price_ids={} if price_ids is None else price_ids,
        key_name=None if settings is None else key_name(endpoint, settings),
        secrets=() if settings is None else settings.secrets(endpoint.key_env),
    )
    check_request(spec, plan)
    return plan


def continuing(spec: JobSpec) -> Continuing | None:
    broken, cut = spec.on_incomplete == "continue", spec.on_truncated == "continue"
    return Continuing(broken=broken, cut=cut) if broken or cut else None


def check_continuing(spec: JobSpec, plan: Plan) -> None:
    """Partial mode is a thing of some models, while they don't think (contract 8.7). Raises UsageError."""
    if plan.continuing is None:
        return
    key, value = ("on_incomplete", "retry") if plan.continuing.broken else ("on_truncated", "keep")
    instead = f"write `{key}: {value}`"
    if "partial" not in plan.model.features:
        raise UsageError(
            f"`{key}: continue` needs partial mode, which {spec.model} at {spec.provider} doesn't have",
            code="partial-mode",
            remedy=f"{instead}, or choose a model that has it: qwen3-vl-plus at Model Studio, for one",
        )
    if plan.prompt is not None and plan.model.may_think(plan.thinking):
        raise UsageError(
            f"`{key}: continue` needs partial mode, which {spec.model} doesn't have while it thinks",
            code="partial-mode",
            remedy=f"{instead}, or `thinking: {{enabled: false}}`",
        )


def check_request(spec: JobSpec, plan: Plan) -> None:
    """Refuse before any call what every call of the job would be refused for."""
    check_continuing(spec, plan)
    if spec.inputs.kind in ("images", "urls") and not plan.model.images:
        raise UsageError(
            f"{spec.model} at {spec.provider} takes no pictures",
            code="model-without-images",
            remedy="choose a model that does; `batchrun models` lists them",
        )
    parts = (TextPart(text="x"),)
    request = ChatRequest(
        model=spec.model,
        messages=(Message(role="user", parts=parts),),
        params=plan.params,
        thinking=plan.thinking,
        stream=plan.stream,
    )
    try:
        plan.dialect.encode(request, plan.model.rules)
    except ProviderError as error:
        raise UsageError(error.message, code="request-refused", remedy=error.remedy) from error


def headers_of(endpoint: Endpoint, dialect: Dialect, settings: Settings | None, *, stream: bool) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        **dialect.headers(stream=stream),
        "accept-encoding": "identity",
        "user-agent": f"batchrun/{__version__}",
    }
    if endpoint.key_env and settings is not None:
        headers["authorization"] = f"Bearer {require_key(endpoint, settings)}"
    return headers


def require_keys(jobs: JobFile, catalogue: Catalogue, settings: Settings) -> None:
    """Raises UsageError where a job's provider has no key in the environment; before anything is written."""
    for job in jobs.jobs:
        endpoint = catalogue.endpoint(job.provider)
        if endpoint.key_env:
            require_key(endpoint, settings)


def key_name(endpoint: Endpoint, settings: Settings) -> str | None:
    key = settings.key(endpoint.key_env)
    return None if key is None else key.name


def require_key(endpoint: Endpoint, settings: Settings) -> str:
    """Raises UsageError that names the variables."""
    key = settings.key(endpoint.key_env)
    if key is None:
        names = " and ".join(endpoint.key_env)
        raise UsageError(
            f"no key for {endpoint.name}: {names} {'are' if len(endpoint.key_env) > 1 else 'is'} not set",
            code="key-missing",
            remedy=f"export {endpoint.key_env[-1]}=… and run again; without a key you can try everything with "
            "provider: simulator/model-studio-singapore",
        )
    return key.reveal()
