"""Reads a request of Moonshot's own API into the common form (contract 8.5)."""

from dataclasses import replace
from typing import Final

from batchrun.simulator.dialect import Asked
from batchrun.simulator.models import Model
from batchrun.simulator.parameters import Fields, read_parameters, whole
from batchrun.simulator.refusals import invalid

COMMON: Final = ("messages", "stream", "stream_options", "seed", "response_format", "tools", "tool_choice")
"""Members that mean the same as in compat; what is not known is passed over."""
FIXED: Final = {"temperature": 1, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
USUAL_LENGTH: Final = 1_024
PICTURE_TYPES: Final = ("image/png", "image/jpeg", "image/webp")


def read_moonshot(fields: Fields, model: Model) -> Asked:
    """Raise `Refusal` for what the service does not accept."""
    for name, only in FIXED.items():
        if fields.get(name, only) not in (None, only):
            raise invalid(f"invalid {name}: only {only} is allowed for this model", param=name)
    limit = whole(fields, "max_completion_tokens", 1, model.max_output)
    limit = limit or whole(fields, "max_tokens", 1, model.max_output) or USUAL_LENGTH
    common: dict[str, object] = {name: fields[name] for name in COMMON if name in fields}
    common |= {"max_tokens": limit, "enable_thinking": wants_thinking(fields)}
    messages = fields.get("messages")
    if isinstance(messages, list):
        common["messages"] = [with_common_parts(message) for message in messages]
    return Asked(common, replace(read_parameters(common, model), context=model.max_input))


def wants_thinking(fields: Fields) -> bool:
    """On unless it is switched off; the switch has no other member."""
    switch = fields.get("thinking", {"type": "enabled"})
    if switch not in ({"type": "enabled"}, {"type": "disabled"}):
        raise invalid('thinking must be {"type": "enabled"} or {"type": "disabled"}', param="thinking")
    return switch == {"type": "enabled"}


def with_common_parts(message: object) -> object:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(content, list):
        return message
    return {**message, "content": [common_part(part) for part in content]}


def common_part(part: object) -> object:
    """The part with its address as an object; a text part, and what is no part, as they are."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in ("image_url", "video_url"):
        return part
    holder = part.get(kind)
    url = holder.get("url") if isinstance(holder, dict) else holder
    if isinstance(url, str):
        check_address(kind, url)
    return {"type": kind, kind: {"url": url}}


def check_address(kind: str, url: str) -> None:
    if url.startswith("ms://"):
        return
    if not url.startswith("data:"):
        raise invalid("unsupported url: only base64 data and ms:// file ids are supported", param=kind)
    mime = url[len("data:") :].partition(";")[0]
    if kind == "image_url" and mime not in PICTURE_TYPES:
        raise invalid(f"unsupported image format: {mime[:80]}", param=kind)
