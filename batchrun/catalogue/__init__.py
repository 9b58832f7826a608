"""What exists and what it can do: endpoints, their models, limits and prices.

The figures are data, with their sources, in `catalogue.yaml` (provider contract 0.2). The user's own file is merged
over it, field by field; after that, simulators copy what they simulate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from pydantic_core import PydanticCustomError

from batchrun.catalogue.addresses import check_base_url, is_exposed
from batchrun.catalogue.collected import Collected, collected
from batchrun.catalogue.file import CatalogueFile, EndpointEntry, ModelEntry, PicturesEntry, PriceEntry
from batchrun.catalogue.merge import (
    contradictions,
    merge_files,
    merge_models,
    merge_pictures,
    models_at,
    pictures_at,
    resolved,
)
from batchrun.catalogue.reader import as_written, read_catalogue_file, refuse
from batchrun.counting.clips import VideoFormula
from batchrun.counting.tokens import PictureFormula
from batchrun.dialects.base import ModelRules
from batchrun.errors import CatalogueError
from batchrun.jobfile.sections import BATCH_CHAT, ONLINE, Mode
from batchrun.media.rules import FORMAT_NAMES, PictureRules
from batchrun.media.videos import VideoRules
from batchrun.messages import JsonValue, Thinking
from batchrun.pacing.limits import Limits
from batchrun.pricing import Price, Tier
from batchrun.showing import clean, listing

BUNDLED = Path(__file__).with_name("catalogue.yaml")
KEPT = BUNDLED.with_suffix(".json")
"""What stands in `BUNDLED`, checked and with its SHA-256: reading the YAML takes half a second of each start."""
FEATURES = ("web_search", "partial", "cache")
FEATURE_FIELDS = {"web_search": ("enable_search",)}
"""Parameters that mean nothing to a model which is known to lack the feature."""
ERROR_TABLES = {"compat": "openai", "native": "model-studio"}
"""By dialect, where an entry names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """How a model can be held to a form of its answers."""

    form: Literal["json_schema", "json_object", "none"] = "none"
    """`json_object` promises JSON, and knows no schema."""
    while_thinking: bool = False
    """Whether it may be asked of a model that thinks before it answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model at one endpoint. Sizes are tokens; None is not known. The defaults are those of an unlisted model."""

    id: str
    rules: ModelRules = field(default_factory=ModelRules)
    images: bool = True
    videos: bool = True
    thinks_by_default: bool = False
    system_while_thinking: bool = True
    """False where the vendor advises against a system message to a model that thinks (contract O9)."""
    features: frozenset[str] = frozenset()
    """Some of `FEATURES`: what it is known to do."""
    lacks: frozenset[str] = frozenset()
    """What it is known not to do. Of a feature in neither set nothing is known."""
    context: int | None = None
    max_input_thinking: int | None = None
    max_input: int | None = None
    """Largest input of a call without thinking."""
    max_cot: int | None = None
    """Most tokens of thinking; they are billed as output beside `max_output`."""
    max_output: int | None = None
    max_image_tokens: int | None = None
    """The most that one picture can become, marks included."""
    picture_tokens: PictureFormula | None = None
    """How pictures are counted; None where no formula is published."""
    video_tokens: VideoFormula | None = None
    """The same of videos and image lists."""
    video_rules: VideoRules = field(default_factory=VideoRules)
    """What is taken of a video."""
    pixel_bounds: tuple[int, int] | None = None
    """The lowest and the highest `min_pixels` and `max_pixels` that a request may ask for; None where it takes none."""
    structured: Structured | None = None
    """None is not known."""
    tools: bool | None = None
    """Whether it can call functions; None is not known."""
    retired_on: date | None = None
    replaced_by: str | None = None
    limits: Limits = field(default_factory=Limits)
    prices: tuple[Price, ...] = ()
    """By rising `valid_from`."""
    unpriced: str = ""
    """Why a price that was looked for elsewhere (`prices_from`) isn't there."""
    source: str = ""
    checked_on: date | None = None

    def input_limit(self, thinking: bool) -> int | None:
        """Most input tokens of a call; the context where no limit of the input alone is known."""
        own = self.max_input_thinking if self._thinks(thinking) else None
        return next((limit for limit in (own, self.max_input, self.context) if limit is not None), None)

    def output_bound(self, *, max_tokens: int | None, thinking: Thinking | None) -> int | None:
        """Most output tokens of a call that can be billed; None where there is no known bound.

        `max_tokens` doesn't limit the thinking (contract 8.11), so where the model may think, its limit of thinking or
        the budget, if one can be sent, comes on top. Where one of them isn't known, the context holds them all.
        """
        answer = self.max_output if max_tokens is None else max_tokens
        if not self.may_think(thinking):
            return self.context if answer is None else answer
        budget = thinking.budget if thinking is not None and self.rules.thinking_budget else None
        thought = self.max_cot if budget is None else budget
        return self.context if answer is None or thought is None else answer + thought

    def may_think(self, thinking: Thinking | None) -> bool:
        """Whether a call that asks for this can bring thinking."""
        return self.may_think_by(None if thinking is None else thinking.enabled)

    def may_think_by(self, enabled: bool | None) -> bool:
        """The same by the switch alone; None where nothing is said."""
        return self._thinks(self.thinks_by_default if enabled is None else enabled)

    def price_at(self, moment: datetime) -> Price | None:
        """The price that holds at `moment`, which carries a zone; None where none is known."""
        return next((price for price in reversed(self.prices) if price.valid_from <= moment), None)

    def retirement_notice(self, today: date) -> str | None:
        """A sentence about the vendor's announced end of this model; None before its day and where there is none."""
        if self.retired_on is None or today < self.retired_on:
            return None
        successor = f", successor {self.replaced_by}" if self.replaced_by else ""
        return f"{self.id}: announced end {self.retired_on.isoformat()}{successor}"

    def _thinks(self, asked: bool) -> bool:
        return self.rules.thinking == "always" or (self.rules.thinking == "switchable" and asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of one provider: who answers there, with which keys, and for which models."""

    name: str
    """`model-studio/singapore`: provider and region."""
    provider: str
    region: str
    """Empty for a provider without regions."""
    dialect: str
    base_url: str
    """Without a slash at its end; empty for a simulator that hasn't been started."""
    key_env: tuple[str, ...]
    """Environment variables that may hold the key, best first; empty where no key is sent."""
    allow_http: bool
    simulated: bool
    simulates: str | None
    models_of: str | None
    """The endpoint that serves the same models to the same accounts in another dialect: models, prices and limits
    are that one's. For a simulator, the one that simulates that endpoint."""
    batch_chat_of: str | None = None
    """The endpoint whose jobs come here under `mode: batch-chat`; for a simulator, the one that simulates that. Prices
    and limits are this one's own."""
    answers_within: timedelta | None = None
    """How long the server may hold a call's connection until the answer is whole; nothing is streamed then. None where
    the job's `stream` and `timeouts` hold."""
    error_table: str
    """Whose codes the errors carry: one of `error_tables.TABLES`."""
    models: Mapping[str, Model]
    open_models: bool
    """Any model id is accepted; those that aren't listed have the defaults of `Model`."""
    media_urls: bool = True
    """Whether pictures may be named by http(s) addresses."""
    file_ids: bool = False
    """Whether pictures and videos may be named by the ids of files that the vendor has."""
    uploads: str = "none"
    """How files go to the vendor's temporary storage: `dashscope`, or `none`."""
    upload_hosts: tuple[str, ...] = ()
    """Endings of the names of hosts to which they may go."""
    pictures: PictureRules = field(default_factory=PictureRules)
    """What is taken of the pictures for models that aren't listed; the others have it in their rules."""
    max_tokens_as: str = "max_tokens"
    """The name under which `max_tokens` is sent."""
    collected: Collected | None = None
    """Where prices of models without one come from."""

    @property
    def limited_as(self) -> tuple[str, str]:
        """Provider and region whose calls count together under the vendor's limits."""
        provider, _, region = (self.models_of or self.name).partition("/")
        return provider, region

    def ruled(self, model: Model) -> Model:
        """`model` with the rules that hold for every model here."""
        rules = replace(
            model.rules, media_urls=self.media_urls, file_ids=self.file_ids, max_tokens_as=self.max_tokens_as
        )
        return replace(model, rules=rules)

    def priced(self, model: Model) -> Model:
        """`model` with a collected price, where it has none and the entry asks for it."""
        if self.collected is None or model.prices:
            return model
        try:
            entries = self.collected.prices_of(model.id)
        except LookupError as reason:
            return replace(model, unpriced=str(reason.args[0]))
        return replace(model, prices=_prices(self.collected.endpoint, model.id, entries))

    def with_prices(self) -> Endpoint:
        """The same endpoint, with each of its models `priced`."""
        return replace(self, models={name: self.priced(model) for name, model in self.models.items()})

    def at(self, base_url: str) -> Endpoint:
        """The same endpoint at another address. Raises CatalogueError for one that can't be used."""
        try:
            url = check_base_url(base_url)
        except PydanticCustomError as error:
            remedy = str((error.context or {}).get("remedy", ""))
            raise CatalogueError(f"the address of {self.name} {error}", code="base-url", remedy=remedy) from error
        if self.key_env and not self.allow_http and is_exposed(url):
            message = f"a key of {self.name} would go over plain http to another machine"
            raise CatalogueError(message, code="base-url", remedy="Use https, or `allow_http: true` in the catalogue")
        return replace(self, base_url=url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    endpoints: Mapping[str, Endpoint]

    def endpoint(self, name: str) -> Endpoint:
        """Raises CatalogueError, with the nearest names and all names, where there is none of that name."""
        found = self.endpoints.get(name)
        if found is not None:
            return found
        named = {name: endpoint for name, endpoint in self.endpoints.items() if endpoint.batch_chat_of is None}
        real = sorted(name for name, endpoint in named.items() if not endpoint.simulated)
        raise CatalogueError(
            f"no provider `{clean(name)}` in the catalogue{_nearest(name, named)}",
            code="unknown-provider",
            remedy=f"Known are: {listing(real)}, and simulators. A catalogue file of your own can add another",
        )

    def named(self, model_id: str) -> Iterator[tuple[Endpoint, Model]]:
        """The model at each real endpoint that lists it, or that looks elsewhere for prices of what it doesn't list."""
        for endpoint in self.endpoints.values():
            unlisted = endpoint.open_models and endpoint.collected is not None
            if not endpoint.simulated and (unlisted or model_id in endpoint.models):
                yield endpoint, self.model(endpoint.name, model_id)

    def endpoint_for(self, provider: str, mode: Mode) -> Endpoint:
        """Where the calls of a job go that names this provider. Raises CatalogueError."""
        named = self.endpoint(provider)
        if named.batch_chat_of is not None:
            raise CatalogueError(
                f"jobs don't name {named.name}: it is the batch chat of {named.batch_chat_of}",
                code="batch-chat",
                remedy=f"write `provider: {named.batch_chat_of}` and `mode: {BATCH_CHAT}`",
            )
        if mode == ONLINE:
            return named
        places = {endpoint.batch_chat_of: endpoint for endpoint in self.endpoints.values()}
        if named.name in places:
            return places[named.name]
        others = [other for other in places if other and self.endpoint(other).simulated == named.simulated]
        raise CatalogueError(
            f"{named.name} has no batch chat; known is that of {listing(others) or 'no provider'}",
            code="batch-chat",
            remedy=f"delete `mode: {BATCH_CHAT}`, or name another provider",
        )

    def model(self, endpoint_name: str, model_id: str) -> Model:
        """Raises CatalogueError, with where the model exists and the nearest ids, where it isn't at that endpoint."""
        endpoint = self.endpoint(endpoint_name)
        if model_id in endpoint.models:
            return endpoint.ruled(endpoint.models[model_id])
        if endpoint.open_models:
            unlisted = Model(id=model_id, rules=ModelRules(pictures=endpoint.pictures))
            return endpoint.priced(endpoint.ruled(unlisted))
        if endpoint.batch_chat_of is not None:
            raise CatalogueError(
                f"the batch chat of {endpoint.batch_chat_of} isn't known to take `{clean(model_id)}`",
                code="batch-chat",
                remedy=f"delete `mode: {BATCH_CHAT}` for the ordinary price, choose "
                f"{listing(sorted(endpoint.models))}, or add the model and its price to {endpoint.name} in a catalogue "
                "file of your own",
            )
        places = self.endpoints.items()
        elsewhere = [name for name, other in places if model_id in other.models and other.batch_chat_of is None]
        raise CatalogueError(
            f"no model `{clean(model_id)}` at {endpoint.name}"
            + (f"; it exists at {listing(elsewhere)}" if elsewhere else _nearest(model_id, endpoint.models)),
            code="unknown-model",
            remedy=f"Known there: {listing(sorted(endpoint.models))}. A catalogue file of your own can add another",
        )


def load_catalogue(user_file: Path | None = None) -> Catalogue:
    """The bundled catalogue, with the user's own file merged over it. Raises CatalogueError with all its problems."""
    if user_file is None:
        return Catalogue(endpoints=_build(_bundled()))
    own, document = read_catalogue_file(user_file)
    merged = merge_files(_bundled(), own)
    problems = contradictions(merged, document, user_file)
    if problems:
        refuse(problems)
    return Catalogue(endpoints=_build(merged))


@cache
def _bundled() -> CatalogueFile:
    written = BUNDLED.read_bytes()
    kept = msgspec.json.decode(KEPT.read_bytes())
    if kept["sha256"] == hashlib.sha256(written).hexdigest():
        return CatalogueFile.model_validate(kept["catalogue"])
    return read_bundled()[0]


def read_bundled() -> tuple[CatalogueFile, JsonValue]:
    """The catalogue that comes with batchrun, from its YAML; and the plain values that it was made of."""
    file, document = read_catalogue_file(BUNDLED)
    problems = contradictions(file, document, BUNDLED)
    if problems:
        refuse(problems)
    return file, as_written(document)


def _build(file: CatalogueFile) -> dict[str, Endpoint]:
    real = {name: _endpoint(name, entry, file) for name, entry in file.endpoints.items() if entry.simulates is None}
    real |= {name: _taking(endpoint, file, real) for name, endpoint in real.items() if endpoint.models_of is not None}
    return {
        name: real[name] if entry.simulates is None else _simulator(name, entry, real[entry.simulates], file)
        for name, entry in file.endpoints.items()
    }


def _own_models(name: str, entry: EndpointEntry, file: CatalogueFile) -> Iterator[tuple[str, ModelEntry]]:
    """What the entry itself lists, with all that it takes over from elsewhere."""
    models = models_at(name if entry.simulates is None else entry.simulates, file)
    if entry.simulates is not None:
        models = resolved(merge_models(models, entry.models))
    return ((model_id, models[model_id]) for model_id in entry.models)


def _endpoint(name: str, entry: EndpointEntry, file: CatalogueFile) -> Endpoint:
    provider, _, region = name.partition("/")
    pictures = pictures_at(name, file)
    endpoint = Endpoint(
        name=name,
        provider=provider,
        region=region,
        dialect=entry.dialect,
        base_url=entry.base_url,
        key_env=tuple(entry.key_env),
        allow_http=entry.allow_http,
        simulated=entry.simulates is not None,
        simulates=entry.simulates,
        models_of=entry.models_of,
        batch_chat_of=entry.batch_chat_of,
        answers_within=None if entry.answers_within is None else timedelta(seconds=entry.answers_within),
        error_table=entry.error_table if "error_table" in entry.model_fields_set else ERROR_TABLES[entry.dialect],
        models={
            model_id: _model(name, model_id, model, pictures) for model_id, model in _own_models(name, entry, file)
        },
        open_models=entry.open_models,
        media_urls=entry.media_urls,
        file_ids=entry.file_ids,
        uploads=entry.uploads,
        upload_hosts=tuple(entry.upload_hosts),
        pictures=_pictures(pictures),
        max_tokens_as=entry.max_tokens_as,
        collected=None if entry.prices_from is None else collected(entry.prices_from, name),
    )
    return endpoint.with_prices()


def _taking(endpoint: Endpoint, file: CatalogueFile, real: Mapping[str, Endpoint]) -> Endpoint:
    """With the very models of another endpoint, prices included; what its entry says of a model goes over that."""
    entry, owner = file.endpoints[endpoint.name], real[endpoint.models_of or ""]
    table = endpoint.error_table if "error_table" in entry.model_fields_set else owner.error_table
    return replace(
        endpoint,
        error_table=table,
        models={**owner.models, **endpoint.models},
        collected=owner.collected if endpoint.collected is None else endpoint.collected,
    ).with_prices()


def _simulator(name: str, entry: EndpointEntry, real: Endpoint, file: CatalogueFile) -> Endpoint:
    """Speaks as `real` does and prices with its very prices; what the entry says of a model goes over that."""
    own = _endpoint(name, entry, file)
    twins = {found.simulates: other for other, found in reversed(file.endpoints.items()) if found.simulates is not None}
    return replace(
        own,
        models_of=twins.get(real.models_of or ""),
        batch_chat_of=twins.get(real.batch_chat_of or ""),
        answers_within=own.answers_within or real.answers_within,
        dialect=entry.dialect if "dialect" in entry.model_fields_set else real.dialect,
        error_table=entry.error_table if "error_table" in entry.model_fields_set else real.error_table,
        open_models=entry.open_models if "open_models" in entry.model_fields_set else real.open_models,
        uploads=entry.uploads if "uploads" in entry.model_fields_set else real.uploads,
        upload_hosts=tuple(entry.upload_hosts) if "upload_hosts" in entry.model_fields_set else real.upload_hosts,
        media_urls=entry.media_urls if "media_urls" in entry.model_fields_set else real.media_urls,
        file_ids=entry.file_ids if "file_ids" in entry.model_fields_set else real.file_ids,
        max_tokens_as=entry.max_tokens_as if "max_tokens_as" in entry.model_fields_set else real.max_tokens_as,
        models={**real.models, **own.models},
        collected=real.collected if own.collected is None else own.collected,
    ).with_prices()


def _model(endpoint: str, model_id: str, entry: ModelEntry, pictures: PicturesEntry | None) -> Model:
    """`pictures` are those of the endpoint."""
    retirement = entry.retirement
    return Model(
        id=model_id,
        rules=ModelRules(
            thinking=entry.thinking,
            thinking_switch=entry.thinking_switch,
            thinking_budget=entry.thinking_budget,
            stream_only=entry.stream_only,
            forbidden=frozenset(entry.forbidden).union(*(FEATURE_FIELDS.get(lack, ()) for lack in entry.lacks)),
            native_task=entry.native_task,
            pictures=_pictures(merge_pictures(pictures, entry.pictures)),
        ),
        images=entry.images,
        videos=entry.videos,
        thinks_by_default=entry.thinks_by_default or entry.thinking == "always",
        system_while_thinking=entry.system_while_thinking,
        features=frozenset(entry.features),
        lacks=frozenset(entry.lacks),
        context=entry.context,
        max_input_thinking=entry.max_input_thinking,
        max_input=entry.max_input,
        max_cot=entry.max_cot,
        max_output=entry.max_output,
        max_image_tokens=entry.max_image_tokens,
        picture_tokens=_formula(entry),
        video_tokens=_video_formula(entry),
        video_rules=_video_rules(entry),
        pixel_bounds=None if entry.pixel_bounds is None else (entry.pixel_bounds[0], entry.pixel_bounds[1]),
        structured=_structured(entry),
        tools=entry.tools,
        retired_on=retirement.on if retirement else None,
        replaced_by=retirement.replaced_by if retirement else None,
        limits=_limits(entry),
        prices=_prices(endpoint, model_id, entry.prices),
        source=entry.source,
        checked_on=entry.checked_on,
    )


def _structured(entry: ModelEntry) -> Structured | None:
    if entry.structured is None:
        return None
    return Structured(form=entry.structured.form, while_thinking=entry.structured.while_thinking)


def _formula(entry: ModelEntry) -> PictureFormula | None:
    if entry.picture_tokens is None:
        return None
    (least, most), (smallest, largest) = entry.picture_tokens.min_pixels, entry.picture_tokens.max_pixels
    return PictureFormula(factor=entry.picture_tokens.factor, min_pixels=(least, most), max_pixels=(smallest, largest))


def _pictures(entry: PicturesEntry | None) -> PictureRules:
    """What isn't written is as in the contract; null is no limit, where a rule can do without."""
    if entry is None:
        return PictureRules()
    written = {name: getattr(entry, name) for name in entry.model_fields_set - {"source", "checked_on"}}
    for name in ("formats", "large_formats"):
        if written.get(name) is not None:
            written[name] = frozenset(
                mime for mime, format_name in FORMAT_NAMES.items() if format_name in written[name]
            )
    if written.get("large") is not None:
        written["large"] = tuple(written["large"])
    needed = ("formats", "large_formats", "min_side", "max_encoded")
    return replace(PictureRules(), **{k: v for k, v in written.items() if v is not None or k not in needed})


def _video_formula(entry: ModelEntry) -> VideoFormula | None:
    written = entry.video_tokens
    if written is None:
        return None
    bounds = [(low, high) for low, high in (written.min_pixels, written.frame_pixels, written.total_pixels)]
    return VideoFormula(
        factor=written.factor,
        max_frames=written.max_frames,
        min_pixels=bounds[0],
        frame_pixels=bounds[1],
        total_pixels=bounds[2],
    )


def _video_rules(entry: ModelEntry) -> VideoRules:
    written = entry.video_rules
    if written is None:
        return VideoRules()
    rules = VideoRules(url_bytes=written.url_bytes)
    if written.upload_bytes is not None:
        rules = replace(rules, upload_bytes=written.upload_bytes)
    if written.frames is not None:
        rules = replace(rules, frames=(written.frames[0], written.frames[1]))
    if written.seconds is not None:
        rules = replace(rules, seconds=(written.seconds[0], written.seconds[1]))
    return rules


def _limits(entry: ModelEntry) -> Limits:
    if entry.limits is None:
        return Limits()
    return Limits(
        requests_per_minute=entry.limits.requests_per_minute,
        tokens_per_minute=entry.limits.tokens_per_minute,
        tokens_per_day=entry.limits.tokens_per_day,
        concurrency=entry.limits.concurrency,
    )


def _prices(endpoint: str, model_id: str, entries: list[PriceEntry]) -> tuple[Price, ...]:
    provider, _, region = endpoint.partition("/")
    return tuple(
        Price(
            provider=provider,
            region=region,
            model=model_id,
            currency=entry.currency,
            valid_from=entry.valid_from,
            source=entry.source,
            checked_on=entry.checked_on,
            tiers=tuple(Tier(**tier.model_dump()) for tier in entry.tiers),
        )
        for entry in sorted(entries, key=lambda entry: entry.valid_from)
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing: names that are like `name`, in any case, or begin with it."""
    by_lower = {other.lower(): other for other in known}
    begins = [lower for lower in by_lower if lower.startswith(f"{name.lower()}/")]
    matches = begins or get_close_matches(name.lower(), by_lower, n=3, cutoff=0.85)
    return f"; did you mean {' or '.join(by_lower[match] for match in matches)}?" if matches else ""
