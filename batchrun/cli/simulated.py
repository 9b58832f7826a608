"""Starting the bundled simulator for jobs that name it, and stopping it with them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from batchrun.catalogue import Catalogue
from batchrun.settings import Settings
from batchrun.simulator.keys import KEY_VARIABLE
from batchrun.simulator.options import Options
from batchrun.simulator.running import start
from batchrun.spec import JobFile


@contextmanager
def with_simulator(
    jobs: JobFile, catalogue: Catalogue, settings: Settings, book: Path | None
) -> Iterator[tuple[Catalogue, Settings]]:
    """The catalogue with the simulator's address in it, and settings with its key.

    It is started only if a job names it and no catalogue of the user's gives it an address. Its key is made up for
    this run.
    """
    named = {job.provider for job in jobs.jobs}
    waiting = [
        endpoint
        for name, endpoint in catalogue.endpoints.items()
        if name in named and endpoint.simulated and not endpoint.base_url
    ]
    if not waiting:
        yield catalogue, settings
        return
    environment = {**settings.environment, KEY_VARIABLE: "sk-sim-" + secrets.token_hex(16)}
    with start(Options(book=book), environment=environment) as simulator:
        started = {endpoint.name: endpoint.at(simulator.base_url(region_of(endpoint.name))) for endpoint in waiting}
        yield (
            replace(catalogue, endpoints={**catalogue.endpoints, **started}),
            replace(settings, environment=environment),
        )


def region_of(name: str) -> str:
    """`simulator/model-studio-singapore` stands in for the region `singapore`."""
    return name.rpartition("-")[2]
