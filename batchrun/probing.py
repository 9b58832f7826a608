"""What models a server says that it has: one GET of `<base_url>/models`, which the OpenAI form knows. Buys nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrun.catalogue import Catalogue, Endpoint
from batchrun.dialects import DIALECTS
from batchrun.dialects.reading import unreadable
from batchrun.errors import ErrorKind, ProviderError, UsageError
from batchrun.messages import JsonValue
from batchrun.plan import headers_of
from batchrun.settings import masked
from batchrun.showing import clean
from batchrun.transport import PLAIN_BYTES, Transport

if TYPE_CHECKING:
    from batchrun.settings import Settings

SECONDS = 30.0
"""For the whole of the answer."""
PATH = "/models"
NO_SUCH_PATH = frozenset({404, 405, 501})
LONGEST_ID = 200
CONTEXTS = ("context_length", "max_model_len", "context_window", "max_context_length")
"""What servers call the size of the context, if they tell it: OpenRouter, vLLM, and others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedModel:
    """A model that a server lists."""

    id: str
    """As a job file names it; up to 200 characters, without any that can't be seen."""
    context: int | None
    """Tokens; None where the server doesn't tell."""
    listed: bool
    """Whether the catalogue has an entry for it, with what is known of sizes and prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one provider offers."""

    provider: str
    url: str
    """What was asked."""
    open_models: bool
    """Whether a job can name a model that isn't listed in the catalogue."""
    models: Sequence[OfferedModel]
    """By id."""


def ask(catalogue: Catalogue, provider: str, settings: Settings) -> Offer:
    """Ask the server of a provider. Its key is sent as with calls, and nowhere shown.

    Raises CatalogueError for an unknown provider, UsageError where its key or address is missing, ProviderError for
    what goes wrong on the way.
    """
    endpoint = catalogue.endpoint(provider)
    if not endpoint.base_url:
        raise UsageError(
            f"{endpoint.name} has no address until a run starts it",
            code="usage",
            remedy=f"see what it has with: batchrun models {endpoint.name}",
        )
    secrets = settings.secrets(endpoint.key_env)
    try:
        body = finished(fetched(endpoint, settings))
    except ProviderError as error:
        raise without(error, secrets) from error
    return Offer(
        provider=endpoint.name,
        url=endpoint.base_url + PATH,
        open_models=endpoint.open_models,
        models=offered(masked(body.decode("utf-8-sig", "replace"), secrets), endpoint),
    )


def finished(fetching: Coroutine[object, object, bytes]) -> bytes:
    """Here, or on a thread of its own where a loop runs in this one already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(fetching)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batchrun-probe") as pool:
        return pool.submit(asyncio.run, fetching).result()


async def fetched(endpoint: Endpoint, settings: Settings) -> bytes:
    """The body of the answer. Raises ProviderError."""
    dialect = DIALECTS[endpoint.dialect](endpoint.error_table)
    headers = headers_of(endpoint, dialect, settings, stream=False)
    url = endpoint.base_url + PATH
    try:
        async with asyncio.timeout(SECONDS), Transport() as transport, transport.get(url, headers) as response:
            body = await response.read(PLAIN_BYTES)
            if response.status in NO_SUCH_PATH:
                raise no_list(endpoint, response.status)
            if response.status != 200:
                raise dialect.read_error(response.status, response.headers, body)
            return body
    except TimeoutError as error:
        remedy = "check the base_url of the catalogue entry, and whether the server is up"
        raise ProviderError(
            ErrorKind.TIMEOUT, f"{endpoint.name} gave no answer within {SECONDS:.0f} s", remedy=remedy
        ) from error


def no_list(endpoint: Endpoint, status: int) -> ProviderError:
    return ProviderError(
        ErrorKind.NOT_FOUND,
        f"{endpoint.name} has no list of models at {endpoint.base_url}{PATH} (HTTP {status})",
        http_status=status,
        remedy="Not every server has one, and calls may work all the same: take the model's id from its documentation, "
        "and check the base_url of the catalogue entry.",
    )


def without(error: ProviderError, secrets: Sequence[str]) -> ProviderError:
    """The same error; a server may repeat the key in its message."""
    return ProviderError(error.kind, masked(error.message, secrets), http_status=error.http_status, remedy=error.remedy)


def offered(text: str, endpoint: Endpoint) -> list[OfferedModel]:
    """The models of an answer, by id. Raises ProviderError(INCOMPLETE) where it is no list of models."""
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    entries = value.get("data", value.get("models")) if isinstance(value, Mapping) else value
    if not isinstance(entries, list):
        raise unreadable(f"What {endpoint.name} answers at {endpoint.base_url}{PATH} is no list of models.")
    found = {}
    for entry in entries:
        name = entry.get("id", entry.get("name")) if isinstance(entry, Mapping) else entry
        if isinstance(name, str) and isinstance(entry, Mapping | str) and name:
            shown = clean(name, LONGEST_ID)
            found[shown] = OfferedModel(id=shown, context=context_of(entry), listed=name in endpoint.models)
    return [found[name] for name in sorted(found, key=str.lower)]


def context_of(entry: JsonValue) -> int | None:
    sizes = [entry.get(name) for name in CONTEXTS] if isinstance(entry, Mapping) else []
    known = (size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0)
    return next(known, None)
