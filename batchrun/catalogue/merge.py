"""One catalogue out of two files: the later one adds entries, and replaces single fields of earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from batchrun.catalogue.addresses import is_exposed
from batchrun.catalogue.collected import INSTALL, collected
from batchrun.catalogue.file import CatalogueFile, EndpointEntry, Entry, ModelEntry, PicturesEntry
from batchrun.catalogue.reader import problem_at
from batchrun.errors import Problem
from batchrun.jobfile.document import Document, KeyPath

EntryT = TypeVar("EntryT", bound=Entry)


def merge_files(base: CatalogueFile, over: CatalogueFile) -> CatalogueFile:
    """`base` with what `over` says. Prices and other lists are replaced as a whole, never mixed."""
    endpoints = dict(base.endpoints)
    for name, entry in over.endpoints.items():
        endpoints[name] = _merge_endpoints(endpoints[name], entry) if name in endpoints else entry
    return CatalogueFile.model_construct(endpoints=endpoints)


def merge_models(base: Mapping[str, ModelEntry], over: Mapping[str, ModelEntry]) -> dict[str, ModelEntry]:
    models = dict(base)
    for name, entry in over.items():
        models[name] = _merge_model(models[name], entry) if name in models else entry
    return models


def merge_pictures(base: PicturesEntry | None, over: PicturesEntry | None) -> PicturesEntry | None:
    return over if base is None else base if over is None else _overlay(base, over)


def pictures_at(name: str, file: CatalogueFile) -> PicturesEntry | None:
    """What holds for the pictures of all models of an endpoint, with what it takes from another one."""
    entry = file.endpoints[name]
    other = entry.simulates or entry.models_of or entry.batch_chat_of
    return merge_pictures(None if other is None else pictures_at(other, file), entry.pictures)


def models_at(name: str, file: CatalogueFile) -> dict[str, ModelEntry]:
    """The models of a real endpoint: those of the endpoint that it takes them from, with its own over them; for a batch
    chat without their prices and limits."""
    entry = file.endpoints[name]
    other = entry.models_of or entry.batch_chat_of
    taken = {} if other is None else file.endpoints[other].models
    if entry.batch_chat_of is not None:
        taken = {key: model.model_copy(update={"prices": [], "limits": None}) for key, model in taken.items()}
    return resolved(merge_models(taken, entry.models))


OF_ONE_ID = frozenset({"same_as", "prices", "limits", "retirement"})
"""What a vendor says of each id, so that another one doesn't have it too."""


def resolved(models: Mapping[str, ModelEntry]) -> dict[str, ModelEntry]:
    """Each `same_as` replaced by what it names: the fields of that model under those that are written."""
    return {name: _like(entry, models) for name, entry in models.items()}


def _like(entry: ModelEntry, models: Mapping[str, ModelEntry]) -> ModelEntry:
    if entry.same_as is None:
        return entry
    other = models[entry.same_as]
    taken = {name: getattr(other, name) for name in other.model_fields_set - entry.model_fields_set - OF_ONE_ID}
    return entry.model_copy(update=taken)


def contradictions(file: CatalogueFile, document: Document, path: Path) -> list[Problem]:
    """What no single field shows to be wrong. `document` and `path` are those of the file that was read last."""
    return [
        problem_at(document, path, where, message, remedy)
        for name, entry in file.endpoints.items()
        for where, message, remedy in (*_of_endpoint(name, entry, file), *_of_models(name, entry, file))
    ]


def _merge_endpoints(base: EndpointEntry, over: EndpointEntry) -> EndpointEntry:
    merged = _overlay(base, over)
    both = {"models": merge_models(base.models, over.models), "pictures": merge_pictures(base.pictures, over.pictures)}
    return merged.model_copy(update=both)


def _merge_model(base: ModelEntry, over: ModelEntry) -> ModelEntry:
    merged = _overlay(base, over)
    if over.pictures is not None:
        merged = merged.model_copy(update={"pictures": merge_pictures(base.pictures, over.pictures)})
    if base.limits is not None and over.limits is not None:
        return merged.model_copy(update={"limits": _overlay(base.limits, over.limits)})
    return merged


def _overlay(base: EntryT, over: EntryT) -> EntryT:
    return base.model_copy(update={name: getattr(over, name) for name in over.model_fields_set})


def _of_endpoint(name: str, entry: EndpointEntry, file: CatalogueFile) -> Iterator[tuple[KeyPath, str, str]]:
    where: KeyPath = ("endpoints", name)
    real = {other: found for other, found in file.endpoints.items() if found.simulates is None}
    owners = [
        other
        for other, found in real.items()
        if found.models_of is None and found.batch_chat_of is None and other != name
    ]
    if entry.models_of is not None and (entry.models_of not in owners or entry.simulates is not None):
        problem = "is not the name of a real endpoint with models of its own"
        if entry.simulates is not None:
            problem = "is not needed beside `simulates`"
        yield (*where, "models_of"), problem, f"Known are: {', '.join(owners)}"
    if entry.batch_chat_of is not None and (entry.batch_chat_of not in owners or entry.models_of or entry.simulates):
        problem = "is not the name of a real endpoint with models of its own"
        if entry.models_of or entry.simulates:
            problem = f"can't stand beside `{'models_of' if entry.models_of else 'simulates'}`"
        yield (*where, "batch_chat_of"), problem, f"Known are: {', '.join(owners)}"
    if entry.simulates is not None:
        if entry.simulates not in real:
            yield (*where, "simulates"), "is not the name of a real endpoint", f"Known are: {', '.join(real)}"
    elif not entry.base_url:
        yield where, "has no `base_url`", "Write for example `base_url: http://127.0.0.1:8000/v1`"
    if entry.prices_from is not None:
        try:
            collected(entry.prices_from, name)
        except ImportError:
            yield (*where, "prices_from"), "needs another package", f"Install it: {INSTALL}"
        except LookupError as known:
            yield (*where, "prices_from"), "is no vendor that genai-prices has", f"Known are: {known}"
    if entry.key_env and not entry.allow_http and is_exposed(entry.base_url):
        yield (
            (*where, "base_url"),
            "would send a key over plain http to another machine",
            "Use https, or say `allow_http: true` where the network is your own",
        )


def _of_models(name: str, entry: EndpointEntry, file: CatalogueFile) -> Iterator[tuple[KeyPath, str, str]]:
    own = sorted(other for other, model in _all_models(entry, file).items() if model.same_as is None)
    for model_id, model in entry.models.items():
        where: KeyPath = ("endpoints", name, "models", model_id)
        if model.same_as is not None and model.same_as not in own:
            problem = "is not the id of a model of this endpoint with facts of its own"
            yield (*where, "same_as"), problem, f"Known are: {', '.join(own)}"
        both = sorted(set(model.features) & set(model.lacks))
        if both:
            yield (*where, "lacks"), f"names {both[0]}, as `features` does", "Keep it in one of the two"
        if model.thinks_by_default and model.thinking == "never":
            yield (
                (*where, "thinks_by_default"),
                "contradicts `thinking: never`",
                "Write `thinking: always` or `thinking: switchable`",
            )


def _all_models(entry: EndpointEntry, file: CatalogueFile) -> dict[str, ModelEntry]:
    """What it lists, and what stands at the endpoints that it takes models from."""
    owner = file.endpoints.get(entry.simulates or entry.models_of or entry.batch_chat_of or "", entry)
    further = file.endpoints.get(owner.models_of or owner.batch_chat_of or "", entry)
    return further.models | owner.models | entry.models
