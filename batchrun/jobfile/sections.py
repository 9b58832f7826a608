"""The sections of a job in a job file: which keys there are, what they may say, and their defaults.

Each section is a pydantic model. A key that a section doesn't know is refused; `LATER` names the keys that a reader of
the documentation may expect but that do not work yet in this version, so that nothing written is silently ignored.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from batchrun.errors import TemplateError
from batchrun.jobfile.quantities import Money, check_duration, format_duration, parse_duration, parse_money, refusal
from batchrun.jobfile.template import Template
from batchrun.showing import SECRET, clean, listing, shown

SECRET_KEYS = frozenset(
    [
        "api_key",
        "apikey",
        "api-key",
        "key",
        "token",
        "access_token",
        "secret",
        "password",
        "authorization",
        "headers",
        "credentials",
    ]
)
SECRET_ENDINGS = ("_key", "_token", "_secret", "password")
HARMLESS_KEYS = frozenset({"prompt_cache_key", "bos_token", "eos_token", "pad_token"})
"""They end like keys, and vendors know them as something else."""
SCHEMA_NAMES = frozenset({"properties", "$defs", "definitions"})
"""Mappings of JSON Schema whose keys name the fields of an answer, not settings."""
URL_KEYS = frozenset(["base_url", "baseurl", "endpoint", "api_base", "host", "proxy"])
IMAGE_VARIABLES = frozenset({"path", "filename", "stem", "folder"})
URL_VARIABLES = frozenset({"url", "filename", "stem"})

InputKind = Literal["images", "videos", "rows", "requests", "urls", "items"]
Text = Annotated[str, Field(min_length=1)]
Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?=.)([0-9]{1,5}d)?([0-9]{1,7}h)?([0-9]{1,8}m)?([0-9]{1,9}s)?$",
            "examples": ["90s", "1h30m"],
        }
    ),
]
Timeout = Annotated[Duration, AfterValidator(partial(check_duration, longest=timedelta(days=1)))]
Patience = Annotated[Duration, AfterValidator(partial(check_duration, longest=timedelta(days=30)))]
Cap = Annotated[
    Money,
    PlainValidator(parse_money),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(?!0+(\.0+)? ?[A-Z])[0-9]{1,12}(\.[0-9]{1,12})? ?[A-Z]{3}$",
            "examples": ["5.00 USD"],
        }
    ),
]

Priority = Annotated[int, Field(ge=-1_000, le=1_000)]
"""Higher goes first."""


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Stops = Annotated[
    tuple[Text, ...],
    BeforeValidator(_one_or_many),
    Field(strict=False, min_length=1, max_length=16),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 16},
            ]
        }
    ),
]


Mode = Literal["online", "batch-chat"]
ONLINE: Mode = "online"
BATCH_CHAT: Mode = "batch-chat"
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["22:00"])]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):  # no name at all; not in the database; a folder of it
        remedy = "Write a name of the time zone database, such as `Europe/Berlin` or `UTC`"
        raise refusal(f"{shown(name)} is no time zone", remedy) from None
    return name


class Section(BaseModel):
    """A mapping of the job file. The texts below classes and fields are what editors show, and docs/jobfile.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)
    LATER: ClassVar[frozenset[str]] = frozenset()


class InputsSpec(Section):
    """Where the items come from: exactly one source. Paths are relative to the folder of the job file."""

    LATER = frozenset({"parquet"})
    images: Text | None = None
    """Pictures: a folder, a file, or a pattern with `*`, `?`, `[…]` and `**`. Each picture is an item, and its path its
    id. The prompt may use `path`, `filename`, `stem` and `folder`."""
    videos: Text | None = None
    """The same with videos: each is an item. Local videos need another package: pip install 'batchrun[video]'."""
    rows: Text | None = None
    """A file of rows: .jsonl, .ndjson, .csv or .tsv. Each row is an item. A column `id` names it, `image` or `images`
    holds the paths or URLs of its pictures, `video` or `videos` those of its videos, `frames` a list of pictures
    that are one video, and the prompt may use every column. At Moonshot, `ms://` and an id name a file that was
    uploaded there beforehand."""
    requests: Text | None = None
    """A JSONL file of whole requests, in the form of OpenAI's batches: each line has `custom_id`, `method`, `url` and
    `body`. The bodies say all that is asked for, so the job has no prompt, system, params, thinking or output. Pictures
    and videos are named by URLs, data URLs, or paths relative to the folder of the file."""
    urls: Text | None = None
    """A text file with the http(s) URL of a picture or video on each line; what ends like a video file, such as .mp4,
    is one. The prompt may use `url`, `filename` and `stem`."""
    items: Annotated[tuple[dict[str, JsonValue], ...], Field(strict=False, min_length=1, max_length=10_000)] | None = (
        None
    )
    """A few rows, written here; as in a file of rows."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        written = sorted(name for name in self.model_fields_set if getattr(self, name) is not None)
        if len(written) != 1:
            found = f"has {listing(written)}" if written else "names no source"
            raise refusal(
                f"{found}; a job has exactly one source", "Write one of images, videos, rows, requests, urls, items"
            )
        return self

    @property
    def kind(self) -> InputKind:
        kinds: tuple[InputKind, ...] = ("images", "videos", "rows", "requests", "urls", "items")
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @property
    def source(self) -> str:
        """The path or pattern as written; empty for `items`."""
        return self.images or self.videos or self.rows or self.requests or self.urls or ""


class ParamsSpec(Section):
    """Sampling and length, under the vendor's names. What isn't written isn't sent: the vendor's default holds."""

    LATER = frozenset({"n"})
    RESERVED: ClassVar[frozenset[str]] = frozenset(
        [
            "model",
            "messages",
            "input",
            "parameters",
            "stream",
            "stream_options",
            "incremental_output",
            "result_format",
            "enable_thinking",
            "thinking_budget",
            "n",
            "tools",
            "tool_choice",
            "extra_body",
            "extra_headers",
        ]
    )
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Tokens of the answer at most; those of thinking don't count. An answer that is cut by it is `truncated`."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The newer name that some vendors have for `max_tokens`."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Low for the likeliest words, high for variety."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only the likeliest tokens of this total probability are chosen from."""
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    """Only so many of the likeliest tokens are chosen from."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Above 0 against repeating what has been said at all."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Above 0 against repeating what has been said often."""
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    """Above 1 against repetition."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """The same seed and request give similar answers, as far as the vendor keeps that."""
    stop: Stops | None = None
    """The answer ends before one of these texts: one, or a list of them."""
    vl_high_resolution_images: bool | None = None
    """More detail of each picture, for more tokens, at Model Studio."""
    enable_search: bool | None = None
    """Whether the model may search the web before it answers, at Model Studio. Refused for models that can't; what a
    search costs beside its tokens isn't known here."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Any other field of the vendor's, sent as it is written, without checks."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for key, value in extra.items():
            if key.lower() in URL_KEYS or holds_secret({key: value}):
                remedy = "Keys belong in the environment, addresses in a catalogue"
                raise refusal(f"`{clean(key)}` {what_is_wrong(key, value)}", remedy, key)
            if key in cls.RESERVED:
                raise refusal(f"`{key}` is set by batchrun itself", "Delete it; see `thinking` and `stream`", key)
            if key in cls.model_fields:
                remedy = f"Write it directly under `params`: `{key}: …`"
                raise refusal(f"`{key}` is a known parameter", remedy, key)
        return extra

    def sent(self) -> dict[str, JsonValue]:
        """What goes into the request, in one mapping."""
        known = self.model_dump(mode="json", exclude_none=True, exclude={"extra"})
        return {**known, **self.extra}


class ThinkingSpec(Section):
    """Whether the model thinks before it answers. Without this section the model's own default holds."""

    enabled: bool
    """Whether it thinks. Refused before any call where the model can't be told."""
    budget: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Tokens of thinking at most; without it, the model's maximum."""

    @model_validator(mode="after")
    def _budget_needs_thinking(self) -> Self:
        if self.budget is not None and not self.enabled:
            raise refusal("a thinking budget is set, but thinking is off", "Write `enabled: true` or delete `budget`")
        return self


def _long_enough(split: timedelta) -> timedelta:
    return check_duration(split, shortest=timedelta(seconds=2), longest=timedelta(days=1))


class MediaSpec(Section):
    """How pictures and videos are prepared and sent. Your files are never changed: what has to be made smaller or
    cleaned is made anew for each call. What http(s) addresses name is fetched by the vendor, so nothing is done to it.
    Which formats, sizes and lengths a model takes is decided by the content of a file, whatever its name ends in; media
    that it doesn't take fail their own item, before any call, with the rule and the limit in the error."""

    LATER = frozenset(["detail"])
    oversize: Literal["fail", "shrink"] = "fail"
    """What becomes of a picture that is too large for the vendor: with most of them more than 10 MB as base64 (7.8 MB
    of file), or above 3840×2160 and neither JPEG nor PNG. `fail` refuses it before any call; `shrink` sends a smaller
    one of the same ratio, within 7680×4320, as JPEG, or as PNG where it has transparent parts, and `results --full`
    says which."""
    strip: bool = False
    """Whether metadata of local pictures are left out, such as place, camera and comments; the orientation stays. JPEG,
    PNG, WEBP and BMP keep their pixels as they are, TIFF and HEIC are sent as a new JPEG or PNG."""
    max_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """The vendor scales a picture of more pixels (width × height) down to about so many before the model looks at it.
    Fewer cost fewer tokens, but small print gets lost. Only for models that take it; without it, the model's own
    bound. `params.vl_high_resolution_images` makes it ineffective."""
    min_pixels: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """The vendor scales a picture of fewer pixels up to about so many, for more tokens. Only for models that take
    it."""

    check_urls: bool = False
    """Whether this machine asks the server of each URL, before a call is paid for, if a picture or video of the right
    type and size is there. Only public addresses are asked, and those in `BATCHRUN_ALLOW_HOSTS`. Without it URLs are
    passed on as they are, except where a vendor can't reach their host, such as `localhost`."""
    upload: Literal["never", "large", "always"] = "never"
    """Whether local files go to the vendor's temporary storage first: `large` those that are too large to stand in a
    request, `always` all of them, but for the pictures that are taken out of a video. The same file is uploaded once
    for many items. Pictures may have 10 MB then, videos 100 MB. DashScope's native protocol alone."""
    fps: Annotated[float, Field(strict=False, ge=0.1, le=10)] | None = None
    """How many pictures of each second of a video are looked at; without it, the vendor's 2. More for fast motion,
    fewer for long or still videos: 0.2 is one in five seconds. Of a list of `frames` it says how many of them make a
    second."""
    max_frames: Annotated[int, Field(ge=4, le=2_000)] | None = None
    """How many pictures of a video are looked at at most; they are spread evenly then. Where batchrun takes them out of
    the video it holds for every model; a vendor can be told so in DashScope's native protocol alone."""
    video: Literal["auto", "file", "frames"] = "auto"
    """How a local video is sent: `file` as it is, which vendors take up to 10 MB of base64, or 100 MB with `upload`;
    `frames` as pictures that are taken out of it at `fps`, evenly fewer where there are more than the model takes, or
    more than 24 MiB of them; `auto` the file where it is small enough, else pictures."""

    split: Annotated[Duration, AfterValidator(_long_enough)] | None = None
    """A local video that is longer than this is asked for in parts of this length, each of them an item, and one more
    item merges their answers by `merge_prompt`. The prompt may then use `start`, `end`, `part` and `parts`. A rest that
    is short is joined to the part before it."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise refusal("`min_pixels` is above `max_pixels`", "Write the smaller number into `min_pixels`")
        return self

    def sent(self) -> dict[str, JsonValue]:
        """What stands beside each picture in a request."""
        return self.model_dump(include={"max_pixels", "min_pixels"}, exclude_none=True)


class LimitsSpec(Section):
    """Limits of this job alone; those of its provider hold as well. They may be changed while the job runs."""

    concurrency: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Calls in flight at once; without it, the provider's limit or 64."""
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Calls that are started in a minute, evenly spread."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Tokens in and out together, as calls are expected to use."""
    tokens_per_day: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """The same for a day."""


class RetrySpec(Section):
    """How long a failing item is tried again; what can't succeed, such as a broken picture, isn't at all."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    """Tries that may have been billed, the first included."""
    max_elapsed: Patience = timedelta(hours=24)
    """How long failures that cost nothing are repeated: refused connections, rate limits, a server without capacity."""


class TimeoutsSpec(Section):
    """How long to wait for an answer that comes in pieces."""

    first_token: Timeout = timedelta(seconds=120)
    """For the first piece of it."""
    silence: Timeout = timedelta(seconds=120)
    """Between two pieces; reasoning counts, the server's signs of life don't."""
    total: Timeout = timedelta(seconds=3_600)
    """For the whole answer."""


class BudgetSpec(Section):
    """What the job may cost."""

    cap: Cap = Field(alias="max_cost")
    """No call is started that could take the job beyond this amount; in the currency of the model's price."""

    @property
    def max_cost(self) -> Decimal:
        return self.cap.amount

    @property
    def currency(self) -> str:
        return self.cap.currency


class WindowSpec(Section):
    """The hours of the day in which calls are started; those in flight at the end finish. `run --now` doesn't wait.

    On a night on which clocks are changed it is an hour longer or shorter."""

    start: ClockTime
    """The time at which it opens, in 24 hours."""
    end: ClockTime
    """The time at which it closes; one before `start` is of the next day."""
    timezone: Annotated[str, AfterValidator(_known_zone), Field(examples=["Asia/Tokyo"])]
    """Whose time, as the time zone database names it."""

    @model_validator(mode="after")
    def _not_always(self) -> Self:
        if self.start == self.end:
            raise refusal("opens when it closes", "Delete `window`: without one, calls are made at any time")
        return self


class OutputSpec(Section):
    """Answers as text files, one for each item, besides the database. Files that are there already stay."""

    sidecar: Text
    """A template of the file's name, without folders."""
    folder: Text | None = None
    """Where the files go, relative to the job file; without it, beside the pictures."""

    @field_validator("sidecar")
    @classmethod
    def _is_file_name(cls, sidecar: str) -> str:
        template = parsed(sidecar)
        if "/" in template.text or "\\" in template.text or "\x00" in template.text or "\n" in template.text:
            raise refusal("a sidecar is a file name, without folders", "Name the folder under `folder`")
        if not template.names:
            raise refusal("all answers would go into the same file", "Use a variable, such as `{{ stem }}.txt`")
        return sidecar


def is_secret_name(name: str) -> bool:
    """Whether a value of this name would be a credential."""
    plain = name.lower().replace("-", "_")
    return name.lower() in SECRET_KEYS or (plain.endswith(SECRET_ENDINGS) and plain not in HARMLESS_KEYS)


def holds_secret(value: object, *, fields: bool = False) -> bool:
    """Whether there is a credential at any depth, by its name or by its looks. In the `fields` of a schema a name is
    only a name."""
    if isinstance(value, str):
        return SECRET.search(value) is not None
    if isinstance(value, list):
        return any(holds_secret(part) for part in value)
    if not isinstance(value, dict):
        return False
    return any(
        SECRET.search(name) is not None
        or (is_secret_name(name) and not (fields and isinstance(part, dict)))
        or holds_secret(part, fields=name in SCHEMA_NAMES)
        for name, part in value.items()
    )


def what_is_wrong(key: str, value: object) -> str:
    """Why a field that names an address or holds a credential can't be sent, to stand behind its name."""
    if key.lower() in URL_KEYS or is_secret_name(key):
        return "can't be sent with a request"
    return "holds what looks like a key" if isinstance(value, str) else "has something inside that looks like a key"


def parsed(source: str) -> Template:
    """A template of the job file; what is wrong with it as pydantic wants to hear it."""
    try:
        return Template(source)
    except TemplateError as error:
        raise refusal(error.message, error.remedy) from error
