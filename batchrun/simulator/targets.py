"""What a request's address asks for: `/<region>/fault/<spec>/compatible-mode/v1/chat/completions`."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from batchrun.simulator.models import REGIONS

CHAT: Final = ["compatible-mode", "v1", "chat", "completions"]


@dataclass(frozen=True, slots=True)
class Target:
    """Region and fault spec of a chat request. Without a region in the address it is the first one."""

    region: str = REGIONS[0]
    spec: str = ""


def path_of(target: str) -> str:
    """The path of a request target; empty when it is no address."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def chat_target(path: str) -> Target | None:
    """None for a path that is not one of chat completions."""
    words = path.removeprefix("/").split("/")
    if words[-len(CHAT) :] != CHAT:
        return None
    match words[: -len(CHAT)]:
        case []:
            return Target()
        case ["fault", spec]:
            return Target(spec=spec)
        case [region] if region in REGIONS:
            return Target(region)
        case [region, "fault", spec] if region in REGIONS:
            return Target(region, spec)
    return None
