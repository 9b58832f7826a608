"""The models that the simulator knows, typed by hand from the provider contract.

Sources: tables 1.4, 2.1, 2.3, 2.5 (who thinks, what is forbidden), 8.3 (pixels per token), 8.4 (sizes).
Prices stand in `prices`, rate limits in `limits`.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

REGIONS: Final = ("singapore", "virginia", "beijing")
"""The regions of Model Studio."""
ACEDATA: Final = "acedata"
MOONSHOT: Final = "moonshot"
BATCH_CHAT: Final = "beijing-batch"
"""Batch Chat (8.6.2): another host of Model Studio in Beijing."""
PLACES: Final = (*REGIONS, BATCH_CHAT, ACEDATA, MOONSHOT)
"""All that stands in an address for who answers."""
EVERYWHERE: Final = frozenset(REGIONS)
NOT_VIRGINIA: Final = frozenset({"singapore", "beijing"})
BEIJING: Final = frozenset({"beijing"})

UNPRICED: Final = "sim-unpriced"
"""A model of no vendor, known in all regions and without a price, for tests of unknown cost."""


class Thinking(StrEnum):
    NEVER = "never"
    ALWAYS = "always"
    HYBRID = "hybrid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Sizes are tokens; pixel bounds are pixels of one picture after scaling (contract 8.3.2)."""

    name: str
    regions: frozenset[str]
    thinking: Thinking
    thinking_switch: frozenset[bool]
    """Values of `enable_thinking` that are accepted; empty means that the parameter must not be sent."""
    max_input: int
    max_input_thinking: int
    max_thinking: int
    max_output: int
    thinking_budget: bool = True
    pictures: bool = True
    factor: int = 32
    min_pixels: int = 65_536
    max_pixels: int = 2_621_440
    settable_pixels: int = 16_777_216
    max_frames: int = 2_000
    longest_video: int = 3_600
    """Seconds (5.2)."""
    frame_pixels: int = 640 * 32 * 32
    total_pixels: int = 131_072 * 32 * 32
    video_min_pixels: int = 65_536
    forbidden: frozenset[str] = frozenset()
    json_mode: bool = True
    json_while_thinking: bool = False
    partial_mode: bool = False
    partial_on_timeout: bool = False
    web_search: bool | None = None
    """Whether it searches the web (2.2); None where no page says so, and the wish is passed over."""
    stream_only: bool = False
    """Refuses requests for a plain answer (8.1.2)."""
    incremental: bool = False
    """Native frames hold the new text only unless the request says otherwise (8.11)."""


ANY_SWITCH: Final = frozenset({True, False})

QWEN3_VL: Final = Model(
    name="qwen3-vl-plus",
    regions=EVERYWHERE,
    thinking=Thinking.HYBRID,
    thinking_switch=ANY_SWITCH,
    max_input=260_096,
    max_input_thinking=258_048,
    max_thinking=81_920,
    max_output=32_768,
    partial_mode=True,
    incremental=True,
)

QWEN25_VL: Final = Model(
    name="qwen-vl-max",
    regions=EVERYWHERE,
    thinking=Thinking.NEVER,
    thinking_switch=frozenset({False}),
    max_input=129_024,
    max_input_thinking=129_024,
    max_thinking=0,
    max_output=8_192,
    min_pixels=4_096,
    max_pixels=1_310_720,
    max_frames=512,
    longest_video=1_200,
    frame_pixels=768 * 32 * 32,
    total_pixels=65_536 * 32 * 32,
    partial_mode=True,
    partial_on_timeout=True,
)

# No page states how Kimi counts media. One token per 14 x 14 pixels is the only number known (8.3.4), the
# bounds are the simulator's own assumption.
KIMI: Final = Model(
    name="kimi-k2.5",
    regions=BEIJING,
    thinking=Thinking.HYBRID,
    thinking_switch=ANY_SWITCH,
    max_input=260_096,
    max_input_thinking=258_048,
    max_thinking=32_768,
    max_output=32_768,
    thinking_budget=False,
    factor=14,
    min_pixels=4 * 14 * 14,
    max_pixels=1_003_520,
    frame_pixels=640 * 14 * 14,
    total_pixels=131_072 * 14 * 14,
    video_min_pixels=4 * 14 * 14,
    json_mode=False,
    web_search=False,
)


def open_models(size: str, *, max_frames: int, longest_video: int = 3_600) -> tuple[Model, Model]:
    """The open Qwen3-VL models of one size: the one that always thinks and the one that never does (2.5, 8.13)."""
    thinking = replace(
        QWEN3_VL,
        name=f"qwen3-vl-{size}-thinking",
        thinking=Thinking.ALWAYS,
        thinking_switch=frozenset({True}),
        max_frames=max_frames,
        longest_video=longest_video,
        partial_mode=False,
    )
    instruct = replace(
        QWEN3_VL,
        name=f"qwen3-vl-{size}-instruct",
        thinking=Thinking.NEVER,
        thinking_switch=frozenset({False}),
        max_frames=max_frames,
        longest_video=longest_video,
    )
    return thinking, instruct


def on_old_grid(model: Model) -> Model:
    """The model as it counts by squares of 28 pixels (8.3.1 to 8.3.3)."""
    return replace(
        model,
        factor=28,
        min_pixels=3_136,
        max_pixels=1_003_520,
        settable_pixels=12_845_056,
        frame_pixels=768 * 28 * 28,
        total_pixels=65_536 * 28 * 28,
        video_min_pixels=50_176,
    )


OPEN_QWEN25: Final = replace(on_old_grid(QWEN25_VL), longest_video=600)
"""Only how it counts is named (2.5, 8.3); the sizes are those of the commercial models."""

# Always thinks, streams only, and is counted as Qwen2.5-VL (8.3.1, 8.1.2); no page gives its sizes, so these are the
# simulator's own assumption. What thinks doesn't go on with a beginning (8.7).
QVQ: Final = replace(
    OPEN_QWEN25,
    name="qvq-max",
    regions=NOT_VIRGINIA,
    thinking=Thinking.ALWAYS,
    thinking_switch=frozenset({True}),
    max_thinking=16_384,
    partial_mode=False,
    partial_on_timeout=False,
    stream_only=True,
)

MODELS: Final = {
    model.name: model
    for model in (
        QWEN3_VL,
        replace(QWEN3_VL, name="qwen3-vl-flash"),
        replace(QWEN3_VL, name="qwen3-vl-flash-us", regions=frozenset({"virginia"})),
        *open_models("235b-a22b", max_frames=2_000),
        *(
            model
            for size in ("32b", "30b-a3b", "8b")
            for model in open_models(size, max_frames=512, longest_video=1_200)
        ),
        QWEN25_VL,
        replace(QWEN25_VL, name="qwen-vl-plus", longest_video=600),
        *(
            replace(OPEN_QWEN25, name=f"qwen2.5-vl-{size}-instruct", regions=NOT_VIRGINIA)
            for size in ("72b", "32b", "7b", "3b")
        ),
        *(replace(QVQ, name=name) for name in ("qvq-max", "qvq-plus", "qvq-max-latest", "qvq-plus-latest")),
        KIMI,
        replace(
            KIMI,
            name="kimi-k2-thinking",
            thinking=Thinking.ALWAYS,
            thinking_switch=frozenset(),
            max_input=229_376,
            max_input_thinking=229_376,
            max_output=16_384,
            pictures=False,
            forbidden=frozenset({"top_p", "presence_penalty"}),
            json_mode=True,
            json_while_thinking=True,  # it has structured output, and always thinks (2.2)
        ),
        replace(
            KIMI,
            name="Moonshot-Kimi-K2-Instruct",
            thinking=Thinking.NEVER,
            thinking_switch=frozenset(),
            max_input=131_072,
            max_input_thinking=131_072,
            max_thinking=0,
            max_output=8_192,
            pictures=False,
            web_search=True,
        ),
        replace(QWEN3_VL, name=UNPRICED),
    )
}

# Only the context of kimi-k2.5 is named, which input and answer share (8.5).
MOONSHOT_KIMI: Final = replace(
    KIMI,
    regions=frozenset({MOONSHOT}),
    max_input=262_144,
    max_input_thinking=262_144,
    max_output=262_144,
    partial_mode=True,
    web_search=None,
)

# Of these two the price alone is named; that they always think is their name.
MOONSHOT_THINKERS: Final = ("kimi-k2-thinking", "kimi-k2-thinking-turbo")

# The same id names another thing at each provider (1.4).
ELSEWHERE: Final = {
    # The page names no sizes, no switch for the thinking, and no media (2.4): the sizes are those of Model Studio.
    (ACEDATA, "kimi-k2.5"): replace(
        KIMI,
        regions=frozenset({ACEDATA}),
        thinking=Thinking.ALWAYS,
        thinking_switch=frozenset(),
        pictures=False,
        web_search=None,
    ),
    (MOONSHOT, "kimi-k2.5"): MOONSHOT_KIMI,
    # The one vision model here that both of the vendor's lists of it have.
    (BATCH_CHAT, "qwen3-vl-plus"): replace(QWEN3_VL, regions=frozenset({BATCH_CHAT})),
    **{
        (MOONSHOT, name): replace(
            MOONSHOT_KIMI,
            name=name,
            thinking=Thinking.ALWAYS,
            thinking_switch=frozenset({True}),
            pictures=False,
        )
        for name in MOONSHOT_THINKERS
    },
}

SNAPSHOT: Final = re.compile(
    r"(?P<base>qwen3-vl-plus|qwen3-vl-flash|qwen-vl-max|qwen-vl-plus)-(?P<version>latest|\d{4}-\d{2}-\d{2})"
)

LONG_VIDEOS: Final = "2025-04-08"
"""The first dated snapshot of qwen-vl-max that takes videos as long as its main id does (5.2)."""

# Dated Qwen2.5-VL snapshots that already count 32 x 32 pixels per token (8.3.1).
NEW_GRID: Final = frozenset(
    {"qwen-vl-max-latest", "qwen-vl-max-2025-08-13"}
    | {"qwen-vl-plus-latest", "qwen-vl-plus-2025-08-15", "qwen-vl-plus-2025-07-10"}
)


def model_at(place: str, name: str) -> Model | None:
    """The model of that name there; None when there is none."""
    model = find_model(name) if place in REGIONS else ELSEWHERE.get((place, name))
    return model if model is not None and place in model.regions else None


def find_model(name: str) -> Model | None:
    """The Model Studio model of that name, its dated snapshots and `-latest` included; None when nobody knows it."""
    if name in MODELS:
        return MODELS[name]
    snapshot = SNAPSHOT.fullmatch(name)
    if snapshot is None:
        return None
    base = replace(MODELS[snapshot["base"]], name=name)
    if snapshot["base"] == "qwen-vl-max" and snapshot["version"] < LONG_VIDEOS:
        base = replace(base, longest_video=600)
    if base.thinking is Thinking.HYBRID or name in NEW_GRID:
        return base
    return on_old_grid(base)
