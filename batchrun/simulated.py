"""Starting the bundled simulator for jobs that name it, and stopping it with them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from batchrun.catalogue import Catalogue, Endpoint
from batchrun.errors import UsageError
from batchrun.jobfile.sections import BATCH_CHAT, ONLINE
from batchrun.jobfile.spec import JobFile
from batchrun.settings import Settings
from batchrun.simulator.faults import FaultSpecError, parse_spec
from batchrun.simulator.keys import KEY_VARIABLE
from batchrun.simulator.models import ACEDATA, MOONSHOT
from batchrun.simulator.options import Options
from batchrun.simulator.running import Running, SimulatorFailed, start
from batchrun.simulator.targets import ACEDATA_BASE, COMPAT_BASE, MOONSHOT_BASE, NATIVE_BASE, base_path

__all__ = ["Running", "simulator", "with_address", "with_simulator", "without_secrets"]


@contextmanager
def with_simulator(
    jobs: JobFile, catalogue: Catalogue, settings: Settings, book: Path | None
) -> Iterator[tuple[Catalogue, Settings]]:
    """The catalogue with the simulator's address in it, and settings with its key.

    It is started only if a job names it, and neither the environment nor a catalogue of the user's gives it an address.
    Its key is made up for this run.

    Raises UsageError where it doesn't start.
    """
    catalogue = with_address(catalogue, settings.simulator_url)
    named = {(job.provider, job.mode) for job in jobs.jobs}
    waiting = [
        endpoint
        for endpoint in catalogue.endpoints.values()
        if {(endpoint.name, ONLINE), (endpoint.batch_chat_of, BATCH_CHAT)} & named
        and endpoint.simulated
        and not endpoint.base_url
    ]
    if not waiting:
        yield catalogue, settings
        return
    environment = {**settings.environment, KEY_VARIABLE: "sk-sim-" + secrets.token_hex(16)}
    with ExitStack() as stack:
        simulator = started_in(stack, Options(book=book), without_secrets(environment, catalogue))
        yield (
            with_address(catalogue, simulator.url),
            replace(settings, environment=environment, simulator_url=simulator.url),
        )


def with_address(catalogue: Catalogue, url: str | None) -> Catalogue:
    """The catalogue with the address of a simulator that runs, for the endpoints that have none. Raises CatalogueError
    for one that can't be used."""
    if url is None:
        return catalogue
    waiting = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.simulated and not endpoint.base_url]
    # Its key opens nothing, so it may go over plain http to another machine.
    placed = {
        endpoint.name: replace(endpoint, allow_http=True).at(address_of(url.rstrip("/"), endpoint))
        for endpoint in waiting
    }
    return replace(catalogue, endpoints={**catalogue.endpoints, **placed})


@contextmanager
def simulator(
    *,
    port: int,
    book: Path | None,
    fault: str,
    time_to_first_token: float,
    tokens_per_second: float,
    limits: bool,
    environment: Mapping[str, str],
) -> Iterator[Running]:
    """A simulator by itself while the block lasts. Raises UsageError where it doesn't start."""
    try:
        parse_spec(fault)
    except FaultSpecError as error:
        raise UsageError(
            str(error), code="simulator", remedy="see the faults with: batchrun simulate --list-faults"
        ) from error
    options = Options(
        port=port, book=book, fault=fault, ttft=time_to_first_token, tokens_per_second=tokens_per_second, limits=limits
    )
    with ExitStack() as stack:
        yield started_in(stack, options, environment)


def started_in(stack: ExitStack, options: Options, environment: Mapping[str, str]) -> Running:
    try:
        return stack.enter_context(start(options, environment=environment))
    except SimulatorFailed as error:
        raise UsageError(
            str(error),
            code="simulator",
            remedy="check that the port is free, and that the bill book is in a folder that exists and that you may "
            "write to",
        ) from error


SECRET_ENDINGS = ("_API_KEY", "_TOKEN", "_SECRET", "_SECRET_KEY", "_ACCESS_KEY", "_CREDENTIALS", "PASSWORD")


def without_secrets(environment: Mapping[str, str], catalogue: Catalogue) -> dict[str, str]:
    """What the simulator may know of the environment: its own key, and nobody else's."""
    keys = {name for endpoint in catalogue.endpoints.values() for name in endpoint.key_env} | {"DATABASE_URL"}
    return {
        name: value
        for name, value in environment.items()
        if name == KEY_VARIABLE or (name not in keys and not name.upper().endswith(SECRET_ENDINGS))
    }


def address_of(url: str, endpoint: Endpoint) -> str:
    """What simulates `model-studio/singapore` or `dashscope/singapore` stands in for the region `singapore`."""
    if endpoint.simulates == "acedata":
        return url + base_path(ACEDATA, ACEDATA_BASE, "")
    if endpoint.simulates == "moonshot":
        return url + base_path(MOONSHOT, MOONSHOT_BASE, "")
    base = NATIVE_BASE if endpoint.dialect == "native" else COMPAT_BASE
    return url + base_path((endpoint.simulates or "").rpartition("/")[2], base, "")
