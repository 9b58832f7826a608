"""What the calls of one job share: prepared once in each process, from the job's row, the catalogue and the keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from batchrun import __version__
from batchrun.advice import advice, check_sizes
from batchrun.asked import asked_of
from batchrun.bodies import last_role, written_messages, written_params, written_texts, written_thinking
from batchrun.catalogue import Catalogue, Endpoint, Model
from batchrun.counting.tokens import prompt_tokens
from batchrun.dialects import DIALECTS
from batchrun.dialects.base import Dialect
from batchrun.errors import ProviderError, UsageError
from batchrun.jobfile.asking import ASK_AGAIN, OnInvalid
from batchrun.jobfile.spec import JobFile, JobSpec, stored_spec
from batchrun.jobfile.template import Template
from batchrun.media import RAW_LIMIT
from batchrun.media.public import is_near
from batchrun.media.rules import Preparation
from batchrun.media.videos import Sampling
from batchrun.messages import ChatRequest, JsonValue, MediaPart, Message, Role, TextPart, Thinking, WrittenMessage
from batchrun.pricing import upper_bound
from batchrun.retries import Policy
from batchrun.segments.merging import ANSWERS, is_merged
from batchrun.settings import Settings
from batchrun.stream.continuing import LENGTHS, Continuing, Prefix, limit_in
from batchrun.tables import Record
from batchrun.uploads.upload_form import UploadRules, account_of

if TYPE_CHECKING:
    from batchrun.shape import Shape

ENVELOPE_TOKENS = 64
"""Room for what a chat template adds around each message: role marks, begin and end of turn."""
TOOL_TOKENS = 512
"""Room for what a chat template says about tools before it names them."""
READ = ("tools", "response_format")
"""Parameters whose text the model may read."""
HELD_MARGIN = timedelta(minutes=5)
"""Beyond the time for which a server may hold a call: to open the connection, send the request, receive the answer."""
HEADING_TOKENS = 64
"""Room for the times above an answer that is merged."""
_NOTHING: Mapping[str, JsonValue] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    first_token: timedelta
    silence: timedelta
    """Between two pieces of content; keep-alives don't count, reasoning does."""
    total: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of each request, to be filled in."""

    role: Role
    template: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Merging:
    """The request of an item that merges answers: of text alone."""

    said: tuple[Said, ...]
    params: Mapping[str, JsonValue]
    """Those of the job, without tools and the form of the answers about the parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    provider: str
    """Without its region, as in the catalogue."""
    region: str
    dialect: Dialect
    url: str
    headers: Mapping[str, str] = field(repr=False)
    """With the key where calls are made; it exists in memory only."""
    model: Model
    said: tuple[Said, ...]
    """Empty for a job of written requests: an item's variables are the body of its request then, see `bodies`."""
    params: Mapping[str, JsonValue]
    """Those of the job, as `thinking` is, with tools and the form of the answers; a written request has its own."""
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
    checked_hosts: frozenset[str] | None = None
    """Hosts that may be asked about URLs although they aren't public; None where no URL is looked at."""
    reached_hosts: frozenset[str] | None = None
    """Hosts that the vendor reaches although they don't look public; None where that isn't known of any."""
    uploads: UploadRules | None = None
    """Which files go to the vendor's storage before the call, and how; None for none."""
    preparation: Preparation = field(default_factory=Preparation)
    """What is done to pictures before they are sent."""
    sampling: Sampling = field(default_factory=Sampling)
    """How videos are sent."""
    shape: Shape | None = None
    """The form that answers are to have."""
    merging: Merging | None = None
    """How the answers about the parts of a video become one; None where no video is split."""
    on_invalid: OnInvalid = "keep"
    notes: tuple[str, ...] = ()
    """What the user should know of what isn't sent."""

    @property
    def written(self) -> bool:
        """Whether items are whole requests that somebody wrote."""
        return not self.said

    def texts(self, variables: Mapping[str, JsonValue]) -> list[str]:
        """All that the model may read: the rendered messages, and tools and schema if there are any; or the messages
        and fields of a written request. Raises TemplateError."""
        if self.written:
            return written_texts(variables)
        if self.merging is not None and is_merged(variables):  # the answers to come are no part of its prompt
            return [said.template.render({ANSWERS: "", **variables}) for said in self.merging.said]
        return [*(said.template.render(variables) for said in self.said), *self.beside]

    def merges(self, variables: Mapping[str, JsonValue]) -> bool:
        """Whether the item with these variables merges the answers about the parts of a video."""
        return self.merging is not None and is_merged(variables)

    def said_of(self, variables: Mapping[str, JsonValue]) -> tuple[Said, ...]:
        """The messages of the item with these variables, to be filled in."""
        return self.merging.said if self.merging is not None and is_merged(variables) else self.said

    def shape_of(self, variables: Mapping[str, JsonValue]) -> Shape | None:
        """The form that the answer to the request with these variables is to have."""
        return None if self.merges(variables) else self.shape

    @property
    def beside(self) -> list[str]:
        """What the model reads beside the messages."""
        return [json.dumps(self.params[name], ensure_ascii=False) for name in READ if name in self.params]

    def request(self, variables: Mapping[str, JsonValue], media: Sequence[MediaPart]) -> ChatRequest:
        """The request of an item. Raises TemplateError."""
        messages: Sequence[Message | WrittenMessage] = (
            written_messages(variables, media) if self.written else self.messages(variables, media)
        )
        params, thinking = self.asked(variables)
        return ChatRequest(
            model=self.model.id, messages=tuple(messages), params=params, thinking=thinking, stream=self.stream
        )

    def messages(self, variables: Mapping[str, JsonValue], media: Sequence[MediaPart]) -> list[Message]:
        """Media stand in the last message, before its text. Raises TemplateError."""
        said_here = self.said_of(variables)
        last = len(said_here) - 1
        return [
            Message(
                role=said.role,
                parts=(*(media if number == last else ()), TextPart(text=said.template.render(variables))),
            )
            for number, said in enumerate(said_here)
        ]

    def asked(self, variables: Mapping[str, JsonValue]) -> tuple[Mapping[str, JsonValue], Thinking | None]:
        """The parameters of an item's request, and what it says about thinking."""
        if self.merging is not None and is_merged(variables):
            return self.merging.params, self.thinking
        if not self.written:
            return self.params, self.thinking
        return written_params(variables), written_thinking(variables, by_default=self.model.thinks_by_default)

    def sampling_of(self, media: Mapping[str, JsonValue]) -> Sampling:
        """How the video of a media reference is sent."""
        fps = media.get("fps")
        return replace(self.sampling, fps=float(fps)) if isinstance(fps, int | float) else self.sampling

    def continuing_of(self, variables: Mapping[str, JsonValue]) -> Continuing | None:
        """Which answers to the request with these variables are continued: not those of a written one that thinks, or
        that ends with a beginning of its own."""
        if self.continuing is None or not self.written:
            return self.continuing
        params, thinking = self.asked(variables)
        if self.model.may_think(thinking) or last_role(variables) == "assistant":
            return None
        return self.continuing if self.continuing.cut else replace(self.continuing, limit=limit_in(params))

    @property
    def advice(self) -> list[str]:
        """What the vendor advises against in the job's own settings."""
        system = any(said.role == "system" for said in self.said)
        return [*advice(self.model, system=system, params=self.params, thinking=self.thinking)]

    @property
    def currency(self) -> str | None:
        price = self.model.price_at(datetime.now(UTC))
        return None if price is None else price.currency

    @property
    def input_limit(self) -> int | None:
        if self.written:  # each request chooses whether it thinks
            limits = [self.model.input_limit(thinks) for thinks in (True, False)]
            return max((limit for limit in limits if limit is not None), default=None)
        thinks = self.model.thinks_by_default if self.thinking is None else self.thinking.enabled
        return self.model.input_limit(thinks)

    def input_bound(self, texts: list[str], images: int, videos: Sequence[int | None] = ()) -> int | None:
        """Most input tokens of a request: a token is at least a byte of text; a picture or video has the model's
        maximum. Of each video `videos` says how long its list of pictures is, None where it is one file.

        None where the model's limits aren't known.
        """
        words = sum(len(text.encode()) for text in texts) + ENVELOPE_TOKENS * (len(texts) + 1)
        words += TOOL_TOKENS if "tools" in self.params else 0
        limit = self.input_limit
        media = [self.model.max_image_tokens] * images + [self.video_bound(frames) for frames in videos]
        if None in media:
            return limit
        bound = words + sum(tokens for tokens in media if tokens is not None)
        return bound if limit is None else min(bound, limit)

    def least_input(self, texts: list[str], images: int, videos: Sequence[int | None] = ()) -> int:
        """Fewest input tokens of a request, as `input_bound` counts its parts: pictures and videos of unknown size are
        the smallest that the model makes of any."""
        tokens = prompt_tokens(texts).low
        if self.model.picture_tokens is not None:
            tokens += images * self.model.picture_tokens.asked(self.params).tokens(None).low
        if self.model.video_tokens is not None:
            formula = self.model.video_tokens.asked(self.params)
            tokens += sum((formula.any_video() if n is None else formula.any_frames(n)).low for n in videos)
        return tokens

    def merged_bound(self, variables: Mapping[str, JsonValue]) -> int | None:
        """Most input tokens of an item that merges: of its prompt, and for each part a heading and the longest answer
        that it can have, which is one token in for each out. None where that isn't known. Raises TemplateError."""
        parts, longest = variables.get("parts"), self.output_bound()
        if not isinstance(parts, int) or longest is None:
            return self.input_limit
        if self.continuing is not None and self.continuing.limit is None:
            longest *= self.policy.attempts
        prompt = self.input_bound(self.texts(variables), 0)
        mentions = sum(said.template.source.count(ANSWERS) for said in self.said_of(variables))
        bound = (prompt or 0) + mentions * parts * (longest + HEADING_TOKENS)
        return bound if self.input_limit is None else min(bound, self.input_limit)

    def video_bound(self, frames: int | None) -> int | None:
        """The most that a video can become, or a list of so many pictures; None where no formula is published."""
        if self.model.video_tokens is None:
            return None
        formula = self.model.video_tokens.asked(self.params)
        return (formula.any_video() if frames is None else formula.any_frames(frames)).high

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
        named = [params.get(name) for name in LENGTHS]
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
    endpoint = catalogue.endpoint_for(spec.provider, spec.mode)
    model = catalogue.model(endpoint.name, spec.model)
    dialect = DIALECTS[endpoint.dialect](endpoint.error_table)
    thinking = spec.thinking
    said = said_in(spec)
    asked = asked_of(spec, model, [message.template for message in said])
    plan = Plan(
        name=spec.name,
        provider=endpoint.provider,
        region=endpoint.region,
        dialect=dialect,
        url=endpoint.base_url + dialect.path(model.rules),
        headers=headers_of(endpoint, dialect, settings, stream=spec.stream),
        model=model,
        said=said,
        params={**spec.params, **asked.params, **spec.media.sent()},
        thinking=None if thinking is None else Thinking(enabled=thinking.enabled, budget=thinking.budget),
        stream=spec.stream,
        media_root=media_root,
        timeouts=timeouts_of(spec, endpoint),
        policy=Policy(
            attempts=spec.retry.attempts,
            max_elapsed=spec.retry.max_elapsed,
            asks_again=spec.on_invalid == ASK_AGAIN,
        ),
        continuing=continuing(spec),
        price_ids={} if price_ids is None else price_ids,
        key_name=None if settings is None else key_name(endpoint, settings),
        secrets=() if settings is None else settings.secrets(endpoint.key_env),
        checked_hosts=checked_hosts(spec, settings),
        reached_hosts=reached_hosts(endpoint, catalogue, settings),
        uploads=upload_rules(spec, endpoint, dialect, settings),
        preparation=preparation(spec, model),
        sampling=sampling_of(spec, endpoint, model),
        shape=shape_of(spec),
        merging=merging_of(spec),
        on_invalid=spec.on_invalid,
        notes=(*asked.notes, *notes_on_media(spec), *notes_on_mode(spec, endpoint, model)),
    )
    check_request(spec, plan)
    return plan


def plan_of(job: Record, catalogue: Catalogue) -> Plan:
    """The plan of a job's row, without a key: good for rendering its requests, not for calls."""
    media_root = None if job.media_root is None else Path(job.media_root)
    return prepare(stored_spec(job.spec), catalogue, media_root=media_root)


def timeouts_of(spec: JobSpec, endpoint: Endpoint) -> Timeouts:
    """The job's, unless the server may hold calls for longer: one that is given up meanwhile may be paid for."""
    asked = spec.timeouts
    held = timedelta(0) if endpoint.answers_within is None else endpoint.answers_within + HELD_MARGIN
    return Timeouts(
        first_token=max(asked.first_token, held), silence=max(asked.silence, held), total=max(asked.total, held)
    )


def said_in(spec: JobSpec) -> tuple[Said, ...]:
    """The messages of a job, however it writes them."""
    if spec.messages is not None:
        return tuple(Said(role=message.role, template=Template(message.content)) for message in spec.messages)
    written: tuple[tuple[Role, str | None], ...] = (("system", spec.system), ("user", spec.prompt))
    return tuple(Said(role=role, template=Template(text)) for role, text in written if text is not None)


def preparation(spec: JobSpec, model: Model) -> Preparation:
    """What is uploaded may be larger than what stands in a request."""
    rules = model.rules.pictures
    if spec.media.upload != "never":
        rules = replace(rules, max_encoded=max(rules.max_encoded, (RAW_LIMIT + 2) // 3 * 4))
    return Preparation(rules=rules, strip=spec.media.strip, shrink=spec.media.oversize == "shrink")


def checked_hosts(spec: JobSpec, settings: Settings | None) -> frozenset[str] | None:
    if not spec.media.check_urls:
        return None
    return frozenset() if settings is None else settings.allowed_hosts


def reached_hosts(endpoint: Endpoint, catalogue: Catalogue, settings: Settings | None) -> frozenset[str] | None:
    """A vendor fetches from the internet alone; servers of one's own, and who takes any model, may reach more."""
    real = endpoint if endpoint.simulates is None else catalogue.endpoint(endpoint.simulates)
    if real.open_models or is_near(real.base_url):
        return None
    return frozenset() if settings is None else settings.allowed_hosts


def upload_rules(spec: JobSpec, endpoint: Endpoint, dialect: Dialect, settings: Settings | None) -> UploadRules | None:
    """Raises UsageError where the vendor takes no uploads there, and as `require_key` does."""
    if spec.media.upload == "never":
        return None
    if endpoint.uploads == "none":
        raise UsageError(
            f"`media.upload: {spec.media.upload}` needs a vendor's temporary storage, and {endpoint.name} has none",
            code="no-uploads",
            remedy="write `upload: never`, or choose DashScope's native protocol: provider: dashscope/singapore",
        )
    key = "" if settings is None or not endpoint.key_env else require_key(endpoint, settings)
    return UploadRules(
        which=spec.media.upload,
        policy_url=f"{endpoint.base_url}/uploads?{urlencode({'action': 'getPolicy', 'model': spec.model})}",
        headers={
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"batchrun/{__version__}",
            **({"authorization": f"Bearer {key}"} if key else {}),
        },
        base_url=endpoint.base_url,
        hosts=endpoint.upload_hosts,
        account=account_of(key),
        read_error=dialect.read_error,
    )


def merging_of(spec: JobSpec) -> Merging | None:
    """Its instructions are the system's; what a conversation shows of the answers about parts isn't said here."""
    if spec.merging is None:
        return None
    system = tuple(said for said in said_in(spec) if said.role == "system")
    prompt = Said(role="user", template=Template(spec.merging))
    params = {name: value for name, value in spec.params.items() if name != "response_format"}
    return Merging(said=(*system, prompt), params=params)


def shape_of(spec: JobSpec) -> Shape | None:
    if spec.response_schema is None:
        return None
    from batchrun.shape import Shape  # takes 0.2 s, which most jobs needn't wait for

    return Shape(spec.response_schema)


def continuing(spec: JobSpec) -> Continuing | None:
    """Where an answer is to go on behind what `max_tokens` cuts, that bounds each call and not the whole."""
    broken, cut = spec.on_incomplete == "continue", spec.on_truncated == "continue"
    limit = None if cut else limit_in(spec.params)
    return Continuing(broken=broken, cut=cut, limit=limit) if broken or cut else None


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
    if not plan.written and plan.model.may_think(plan.thinking):
        raise UsageError(
            f"`{key}: continue` needs partial mode, which {spec.model} doesn't have while it thinks",
            code="partial-mode",
            remedy=f"{instead}, or `thinking: {{enabled: false}}`",
        )


def sampling_of(spec: JobSpec, endpoint: Endpoint, model: Model) -> Sampling:
    """How the videos of the job are sent."""
    asked = spec.media
    plain = Sampling(
        how=asked.video,
        fps=asked.fps,
        max_frames=asked.max_frames,
        sends_max_frames=endpoint.dialect == "native",
        uploads=asked.upload != "never",
        rules=model.video_rules,
    )
    formula = model.video_tokens
    if formula is None:
        return plain
    frame, total = formula.frame_pixels[1], formula.total_pixels[1]
    return replace(plain, factor=formula.factor, frame_pixels=frame, total_pixels=total)


def notes_on_media(spec: JobSpec) -> list[str]:
    """What `media` asks for in vain."""
    notes = []
    if spec.inputs.kind == "urls" and (spec.media.strip or spec.media.oversize == "shrink"):
        notes.append("the vendor fetches the pictures itself: they are neither shrunk nor stripped")
    if spec.media.max_pixels is not None and spec.params.get("vl_high_resolution_images") is True:
        notes.append("vl_high_resolution_images makes media.max_pixels ineffective")
    return notes


def notes_on_mode(spec: JobSpec, endpoint: Endpoint, model: Model) -> list[str]:
    """What whoever asks for batch chat should know before it costs money."""
    if endpoint.answers_within is None:
        return []
    minutes = endpoint.answers_within // timedelta(minutes=1)
    notes = [
        f"`mode: {spec.mode}`: an answer may take up to {minutes} min, and `timeouts` don't end it sooner; to stop "
        "without loss, pause the job and wait for its last answers"
    ]
    price = model.price_at(datetime.now(UTC))
    if price is not None and price.checked_on is not None:
        notes.append(
            f"the vendor calls this price limited in time; it was last compared on {price.checked_on.isoformat()}"
        )
    return notes


def check_media(spec: JobSpec, plan: Plan) -> None:
    """The bounds of pixels belong to some models (contract 8.3.2). Raises UsageError."""
    asked = spec.media.sent()
    if plan.written:
        asked |= spec.media.model_dump(include={"fps", "max_frames"}, exclude_none=True)
    if not asked:
        return
    names, bounds = " and ".join(f"media.{name}" for name in asked), plan.model.pixel_bounds
    if plan.written:
        raise UsageError(
            "each line of `inputs.requests` says itself what stands beside its pictures and videos, so "
            f"{names} can't be given",
            code="pixel-bounds",
            remedy="write max_pixels, min_pixels and fps into the parts of the lines; max_frames has no place there",
        )
    if bounds is None:
        raise UsageError(
            f"{spec.model} at {spec.provider} takes no {names}",
            code="pixel-bounds",
            remedy="delete it, or give the model `pixel_bounds` in a catalogue file of your own",
        )
    for name, value in asked.items():
        if isinstance(value, int) and not bounds[0] <= value <= bounds[1]:
            raise UsageError(
                f"media.{name} is {value:,}; {spec.model} at {spec.provider} takes {bounds[0]:,} to {bounds[1]:,}",
                code="pixel-bounds",
                remedy=f"write a number between {bounds[0]} and {bounds[1]}",
            )


def check_request(spec: JobSpec, plan: Plan) -> None:
    """Refuse before any call what every call of the job would be refused for."""
    check_continuing(spec, plan)
    check_media(spec, plan)
    if spec.inputs.kind in ("images", "urls") and not plan.model.images:
        raise UsageError(
            f"{spec.model} at {spec.provider} takes no pictures",
            code="model-without-images",
            remedy="choose a model that does; `batchrun models` lists them",
        )
    check_videos(spec, plan)
    parts = (TextPart(text="x"),)
    request = ChatRequest(
        model=spec.model,
        messages=(Message(role="user", parts=parts),),
        params=plan.params,
        thinking=plan.thinking,
        stream=plan.stream,
    )
    try:
        check_sizes(request, plan.model)
        plan.dialect.encode(request, plan.model.rules)
    except ProviderError as error:
        raise UsageError(error.message, code="request-refused", remedy=error.remedy) from error


def check_videos(spec: JobSpec, plan: Plan) -> None:
    """Raises UsageError for videos that no call can be made with."""
    if spec.inputs.kind != "videos":
        return
    if not plan.model.videos:
        raise UsageError(
            f"{spec.model} at {spec.provider} takes no videos",
            code="model-without-videos",
            remedy="choose a model that does; `batchrun models` lists them",
        )
    if find_spec("av") is None:
        raise UsageError(
            "local videos need another package",
            code="video-extra",
            remedy="install it: pip install 'batchrun[video]'",
        )


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
        endpoint = catalogue.endpoint_for(job.provider, job.mode)
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
