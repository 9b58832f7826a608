"""What may stand in a catalogue file, as people write it.

All fields are optional here, as an entry may also say only what differs from an earlier file;
`model_fields_set` tells what was written. `catalogue_reader` reads a file into these entries, `catalogue` merges
them and builds the values.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from batchrun.catalogue.addresses import check_base_url
from batchrun.jobfile.quantities import refusal

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""`valid_from` of a price that doesn't say since when it holds."""

_RATE = re.compile(r"(?:0|[1-9][0-9]{0,6})(?:\.[0-9]{1,12})?", re.ASCII)
"""Rates below ten million with at most 12 decimals: what 64 bits hold in units of 10⁻¹²."""
_MAX_RATE = Decimal(9_000_000)
_NAME = r"[a-z0-9][a-z0-9._-]{0,99}"
_ENDPOINT = re.compile(f"{_NAME}(?:/{_NAME})?", re.ASCII)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,199}", re.ASCII)


def _read_rate(value: object) -> Decimal:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _RATE.fullmatch(text) or Decimal(text) > _MAX_RATE:
        raise refusal(
            "must be a price per 1,000,000 tokens",
            f"Write a plain number such as 0.05, from 0 to {_MAX_RATE:,}, with at most 12 decimals",
        )
    return Decimal(text)


def _read_moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise refusal("must be a time with its zone", "Write for example 2026-01-01T00:00:00Z")
    return moment


def _read_date(value: object) -> date:
    try:
        return date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise refusal("must be a date", "Write for example 2026-10-10") from None


def _check_endpoint_name(name: str) -> str:
    if not _ENDPOINT.fullmatch(name):
        raise refusal(
            "is not a name that a job file can use", "Write `provider/region` or `provider`, in a-z 0-9 . _ -"
        )
    return name


def _check_model_id(name: str) -> str:
    if not (0 < len(name) <= 200 and name.isprintable() and name == name.strip()):
        raise refusal("is not a model id", "Write the vendor's id: up to 200 characters, no blanks around it")
    return name


def _check_variable(name: str) -> str:
    # The text isn't repeated: a key pasted here by mistake must not reach a terminal or a log.
    if not _VARIABLE.fullmatch(name):
        raise refusal("must be the name of an environment variable", "Write for example MY_API_KEY, never a key")
    return name


Rate = Annotated[Decimal, BeforeValidator(_read_rate)]
Day = Annotated[date, BeforeValidator(_read_date)]
Moment = Annotated[datetime, BeforeValidator(_read_moment)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000_000)]
Allowance = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
EndpointName = Annotated[str, AfterValidator(_check_endpoint_name)]
ModelId = Annotated[str, AfterValidator(_check_model_id)]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TierEntry(Entry):
    up_to: Tokens | None = None
    input: Rate
    output: Rate
    cached_input: Rate | None = None
    cache_write: Rate | None = None
    thinking_output: Rate | None = None


def _check_tiers(tiers: list[TierEntry]) -> list[TierEntry]:
    ends = [tier.up_to for tier in tiers]
    if None in ends[:-1]:
        raise refusal("has a tier without `up_to` that is not the last", "Give every tier but the last an end")
    known = [end for end in ends if end is not None]
    if known != sorted(set(known)):
        raise refusal("must rise in `up_to` from tier to tier", "Put the tiers into order, each end once")
    return tiers


class PriceEntry(Entry):
    currency: Annotated[str, Field(pattern=r"\A[A-Z]{3}\z")]
    valid_from: Moment = ALWAYS
    source: str = "own catalogue file"
    checked_on: Day | None = None
    tiers: Annotated[list[TierEntry], Field(min_length=1), AfterValidator(_check_tiers)]


def _check_prices(prices: list[PriceEntry]) -> list[PriceEntry]:
    if len({price.valid_from for price in prices}) < len(prices):
        raise refusal("has two prices from the same moment on", "Keep one, or give each its own `valid_from`")
    return prices


class LimitsEntry(Entry):
    requests_per_minute: Allowance | None = None
    tokens_per_minute: Allowance | None = None
    tokens_per_day: Allowance | None = None
    concurrency: Allowance | None = None
    source: str = ""
    checked_on: Day | None = None


class RetirementEntry(Entry):
    on: Day
    replaced_by: str | None = None
    source: str = ""
    checked_on: Day | None = None


def _check_bounds(bounds: list[int]) -> list[int]:
    if len(bounds) != 2 or bounds[0] > bounds[1]:
        raise refusal(
            "must be two numbers, the lower one first", "Write for example [4096, 65536]; twice the same is fine"
        )
    return bounds


Feature = Literal["web_search", "partial", "cache"]
PixelBounds = Annotated[list[Tokens], AfterValidator(_check_bounds)]


class PictureTokensEntry(Entry):
    factor: Annotated[int, Field(ge=1, le=1_000)]
    min_pixels: PixelBounds
    max_pixels: PixelBounds
    source: str = ""
    checked_on: Day | None = None


FormatName = Literal["JPEG", "PNG", "WEBP", "BMP", "TIFF", "HEIC", "GIF"]
Pixels = Annotated[int, Field(ge=1, le=100_000_000_000)]


class PicturesEntry(Entry):
    formats: Annotated[list[FormatName], Field(min_length=1)] | None = None
    large_formats: list[FormatName] | None = None
    large: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None
    min_side: Pixels | None = None
    max_ratio: Pixels | None = None
    max_pixels: Pixels | None = None
    max_encoded: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    max_embedded: Tokens | None = None
    max_linked: Tokens | None = None
    source: str = ""
    checked_on: Day | None = None


class VideoTokensEntry(Entry):
    factor: Annotated[int, Field(ge=1, le=1_000)]
    max_frames: Annotated[int, Field(ge=1, le=100_000)]
    min_pixels: PixelBounds
    frame_pixels: PixelBounds
    total_pixels: PixelBounds
    source: str = ""
    checked_on: Day | None = None


class VideosEntry(Entry):
    """What is taken of a video (contract 5.2)."""

    frames: Annotated[list[Tokens], AfterValidator(_check_bounds)] | None = None
    seconds: Annotated[list[Tokens], AfterValidator(_check_bounds)] | None = None
    url_bytes: Allowance | None = None
    upload_bytes: Allowance | None = None
    source: str = ""
    checked_on: Day | None = None


class StructuredEntry(Entry):
    form: Literal["json_schema", "json_object", "none"]
    while_thinking: bool = False
    source: str = ""
    checked_on: Day | None = None


class ModelEntry(Entry):
    same_as: str | None = None
    images: bool = True
    videos: bool = True
    thinking: Literal["never", "always", "switchable"] = "never"
    thinking_switch: str | None = None
    thinking_budget: bool = False
    thinks_by_default: bool = False
    stream_only: bool = False
    forbidden: list[str] = []
    system_while_thinking: bool = True
    features: list[Feature] = []
    lacks: list[Feature] = []
    features_source: str = ""
    native_task: Literal["multimodal-generation", "text-generation"] = "multimodal-generation"
    structured: StructuredEntry | None = None
    tools: bool | None = None
    context: Tokens | None = None
    max_input_thinking: Tokens | None = None
    max_input: Tokens | None = None
    max_cot: Tokens | None = None
    max_output: Tokens | None = None
    max_image_tokens: Tokens | None = None
    picture_tokens: PictureTokensEntry | None = None
    video_tokens: VideoTokensEntry | None = None
    video_rules: VideosEntry | None = None
    pixel_bounds: PixelBounds | None = None
    pictures: PicturesEntry | None = None
    source: str = ""
    checked_on: Day | None = None
    limits: LimitsEntry | None = None
    retirement: RetirementEntry | None = None
    prices: Annotated[list[PriceEntry], AfterValidator(_check_prices)] = []


class EndpointEntry(Entry):
    dialect: Literal["compat", "native"] = "compat"
    error_table: Literal["model-studio", "acedata", "moonshot", "openai"] = "openai"
    """Where none is written, another may hold: see `ERROR_TABLES`."""
    base_url: Annotated[str, AfterValidator(check_base_url)] = ""
    key_env: list[Annotated[str, AfterValidator(_check_variable)]] = []
    allow_http: bool = False
    open_models: bool = False
    media_urls: bool = True
    file_ids: bool = False
    uploads: Literal["none", "dashscope"] = "none"
    upload_hosts: list[Annotated[str, Field(pattern=r"\A\.?[a-z0-9-]+(\.[a-z0-9-]+)+\z")]] = []
    pictures: PicturesEntry | None = None
    max_tokens_as: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    models_of: str | None = None
    batch_chat_of: str | None = None
    answers_within: Annotated[int, Field(ge=1, le=86_400)] | None = None
    simulates: str | None = None
    prices_from: Annotated[str, Field(pattern=r"\Agenai-prices/[a-z0-9_-]+\z")] | None = None
    models: dict[ModelId, ModelEntry] = {}


class CatalogueFile(Entry):
    endpoints: dict[EndpointName, EndpointEntry] = {}
