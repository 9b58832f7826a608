"""What a request's address asks for: `/<region>/fault/<spec>/compatible-mode/v1/chat/completions` and the like.

compat    /<region>/compatible-mode/v1/chat/completions
native    /<region>/api/v1/services/aigc/{text,multimodal}-generation/generation
AceData   /acedata/kimi/chat/completions
Batch Chat is compat at another host, which the region stands for: `beijing-batch`.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from batchrun.simulator.acedata import AceData
from batchrun.simulator.compat import BatchChat, Compat
from batchrun.simulator.dialect import Dialect
from batchrun.simulator.models import ACEDATA, BATCH_CHAT, MOONSHOT, REGIONS
from batchrun.simulator.moonshot import Moonshot
from batchrun.simulator.native import Native


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """A provider's address after the host: the base that a client is given, and what it adds by itself."""

    base: str
    path: str
    places: tuple[str, ...]
    dialect: Dialect
    held: float | None = None
    """Seconds for which a plain answer may take here; None for the simulator's own option."""
    limited: bool = True
    """Whether calls count under the rate limits."""

    @property
    def words(self) -> list[str]:
        return f"{self.base}/{self.path}".split("/")


COMPAT_BASE: Final = "compatible-mode/v1"
NATIVE_BASE: Final = "api/v1"
ACEDATA_BASE: Final = "kimi"
MOONSHOT_BASE: Final = "v1"

APIS: Final = (
    Api(base=COMPAT_BASE, path="chat/completions", places=REGIONS, dialect=Compat()),
    Api(
        base=NATIVE_BASE,
        path="services/aigc/text-generation/generation",
        places=REGIONS,
        dialect=Native(multimodal=False),
    ),
    Api(
        base=NATIVE_BASE,
        path="services/aigc/multimodal-generation/generation",
        places=REGIONS,
        dialect=Native(multimodal=True),
    ),
    Api(
        base=COMPAT_BASE,
        path="chat/completions",
        places=(BATCH_CHAT,),
        dialect=BatchChat(),
        held=3_600,
        limited=False,
    ),
    Api(base=ACEDATA_BASE, path="chat/completions", places=(ACEDATA,), dialect=AceData()),
    Api(base=MOONSHOT_BASE, path="chat/completions", places=(MOONSHOT,), dialect=Moonshot()),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    api: Api
    region: str
    """One of the places of the API; its first one if the address names none."""
    spec: str = ""
    """The fault spec."""


def path_of(target: str) -> str:
    """The path of a request target; empty when it is no address."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def chat_target(path: str) -> Target | None:
    """None for a path that is none of a chat request."""
    words = path.removeprefix("/").split("/")
    for api in APIS:
        count = len(api.words)
        if words[-count:] == api.words and (target := target_of(api, words[:-count])) is not None:
            return target
    return None


def uploads_place(path: str) -> tuple[str, str] | None:
    """Region and fault spec of an address that gives policies for uploads; None for any other."""
    match path.removeprefix("/").split("/"):
        case [region, "api", "v1", "uploads"] if region in REGIONS:
            return region, ""
        case [region, "fault", spec, "api", "v1", "uploads"] if region in REGIONS:
            return region, spec
    return None


def files_place(path: str) -> bool:
    """Whether an address takes files for later calls, with or without a fault spec, which hits calls alone."""
    match path.removeprefix("/").split("/"):
        case [place, "v1", "files"] | [place, "fault", _, "v1", "files"]:
            return place == MOONSHOT
    return False


def target_of(api: Api, before: list[str]) -> Target | None:
    match before:
        case []:
            return Target(api=api, region=api.places[0])
        case ["fault", spec]:
            return Target(api=api, region=api.places[0], spec=spec)
        case [place] if place in api.places:
            return Target(api=api, region=place)
        case [place, "fault", spec] if place in api.places:
            return Target(api=api, region=place, spec=spec)
    return None


def base_path(place: str, base: str, fault: str = "") -> str:
    """The path that a client takes into its base URL, with the fault spec in it."""
    middle = f"/fault/{quote(fault, safe='+=,')}" if fault else ""
    return f"/{place}{middle}/{base}"


def base_paths() -> dict[str, dict[str, str]]:
    """The base path of each protocol and place."""
    return {
        "compat": {region: base_path(region, COMPAT_BASE) for region in (*REGIONS, BATCH_CHAT)},
        "native": {region: base_path(region, NATIVE_BASE) for region in REGIONS},
        "acedata": {ACEDATA: base_path(ACEDATA, ACEDATA_BASE)},
        "moonshot": {MOONSHOT: base_path(MOONSHOT, MOONSHOT_BASE)},
    }
