"""Functions that make the calls of jobs, or say what these will cost."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from batchrun.api.inputs import Jobs, catalogue_for, read_jobs
from batchrun.api.opening import Place, settings_for
from batchrun.catalogue import Catalogue
from batchrun.database import connect, connect_to_tables, reading
from batchrun.demonstration import BOOK, FOLDER, lay_out
from batchrun.drain import GRACE, Stop
from batchrun.errors import UsageError
from batchrun.estimating import estimate_all
from batchrun.estimating.outcome import Estimate
from batchrun.jobfile.spec import JobFile
from batchrun.loading.loader import Loaded, prepared_all
from batchrun.loading.loader import load as load_jobs
from batchrun.output.export import export as export_job
from batchrun.output.sidecar import Sidecars
from batchrun.plan import require_keys
from batchrun.progress import progress_of, showing
from batchrun.running import RunEnd, ends, signals
from batchrun.running import run as drain_jobs
from batchrun.settings import DEFAULT_DATABASE, Settings, current_folder
from batchrun.simulated import Running, simulator, with_simulator, without_secrets
from batchrun.store.sample import draw


def run(
    job_file: Jobs,
    *,
    sample: int | None = None,
    now: bool = False,
    workers: int | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
    progress: bool = False,
    grace: float = GRACE,
    alarm: timedelta | None = None,
    simulator_book: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> RunEnd:
    """Load a job file, make its calls, store the answers; returns where the jobs stand then.

    The calls are made in this process, or by so many `workers`: processes that are started for this run, with a broker
    of their own, and are gone after it.

    `sample` makes the calls of only so many items of each job, chosen as if by lot, and always the same ones first: a
    sample is never bought twice, and a later run goes on with the others. A job whose window is closed is waited for,
    unless `now`. `progress` shows how far it is on standard error; `alarm` is for how long nothing may end before a
    line there says why. `grace` is how many seconds calls in flight get after the first Ctrl-C. `simulator_book` is
    where a simulator that is started here writes its bills. `stop` ends the run from another thread; without it, Ctrl-C
    does, and KeyboardInterrupt is raised once everything is stored.

    Raises what `load` raises, UsageError where a key is missing, and DatabaseError where the database stays away.
    """
    check_sample(sample)
    check_workers(workers, sample=sample, now=now)
    settings = settings_for(database)
    if catalogue is not None:
        settings = replace(settings, catalogue=Path(catalogue))
    jobs, base = read_jobs(job_file)
    known = catalogue_for(catalogue, settings)
    prepared_all(jobs, known)
    with ExitStack() as stack:
        book = None if simulator_book is None else Path(simulator_book)
        known, settings = stack.enter_context(with_simulator(jobs, known, settings, book))
        require_keys(jobs, known, settings)
        engine = connect(settings.database_url, create=True)
        stack.callback(engine.dispose)
        loaded = load_jobs(engine, jobs, known, base=base, on_rows=on_rows)
        on_loaded(loaded)
        end = drained(
            engine,
            loaded,
            known,
            settings,
            sample=sample,
            now=now,
            workers=workers,
            grace=grace,
            progress=progress,
            alarm=alarm,
            stop=stop,
        )
        return replace(end, files=written_files(engine, loaded, jobs))


def check_sample(size: int | None) -> None:
    if size is not None and size < 1:
        raise UsageError(
            f"a sample of {size} items", code="sample-size", remedy="take at least one item, or leave the sample out"
        )


def check_workers(workers: int | None, *, sample: int | None, now: bool) -> None:
    if workers is not None and (workers < 1 or sample is not None or now):
        raise UsageError(
            f"{workers} workers can't be had" if workers < 1 else "workers keep to windows, and make no samples",
            code="workers",
            remedy="take one at least; a sample, or a job that can't wait, is run without them",
        )


def drained(
    engine: Engine,
    loaded: Sequence[Loaded],
    catalogue: Catalogue,
    settings: Settings,
    *,
    sample: int | None,
    now: bool,
    workers: int | None,
    grace: float,
    progress: bool,
    alarm: timedelta | None,
    stop: Stop | None,
) -> RunEnd:
    """Make the calls, with the progress on standard error and Ctrl-C as the way to stop."""
    ids = frozenset(job.job_id for job in loaded)
    drawn = None
    if sample is not None:
        with reading(engine) as connection:
            drawn = draw(connection, ids, sample)
    shown, asked = progress_of(ends(engine, ids, drawn), at_any_time=now), stop or Stop()

    def interrupt() -> None:
        asked.ask()
        shown.notes = [
            f"stopping: no new calls; those in flight get {grace:g} s; Ctrl-C again stops them now"
            if asked.level == 1
            else "stopping now"
        ]
        if progress and not sys.stderr.isatty():
            os.write(2, (shown.notes[0] + "\n").encode())

    with signals(interrupt), showing(shown, engine, quiet=not progress, alarm=alarm):
        if workers is not None:
            from batchrun.worker.run import run_with_workers  # Celery is imported where it is needed alone

            end = run_with_workers(engine, ids, settings, processes=workers, stop=asked, tally=shown.tally, grace=grace)
        else:
            end = drain_jobs(
                engine,
                ids,
                catalogue,
                settings,
                sample=drawn,
                stop=asked,
                tally=shown.tally,
                grace=grace,
                at_any_time=now,
            )
    if stop is None and asked.level:
        raise KeyboardInterrupt
    return end


def written_files(engine: Engine, loaded: Sequence[Loaded], jobs: JobFile) -> dict[int, Sidecars]:
    """The answers as files, where the job file asks for them; files that are there already stay as they are."""
    written: dict[int, Sidecars] = {}
    for job, spec in zip(loaded, jobs.jobs, strict=True):
        if spec.output is not None:
            made = export_job(engine, job.name, "sidecar", None, simulated=job.simulated).sidecars
            if made is not None:
                written[job.job_id] = replace(made, folder=spec.output.folder)
    return written


def estimate(
    job_file: Jobs,
    *,
    sample: int | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
    progress: bool = False,
    simulator_book: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> Estimate:
    """What the jobs of a file will cost, and how long they will take.

    Without `sample` no call is made, no key is needed and nothing is written; what a database that exists knows of the
    jobs is taken into account. With it, the calls of so many items of each job are made first, exactly as
    `run(sample=...)` makes them: their answers are kept, and what they used narrows the estimate of the others.

    Raises SpecError, CatalogueError, UsageError, DatabaseError, and with `sample` what `run` raises.
    """
    end = None
    if sample is not None:
        end = run(
            job_file,
            sample=sample,
            database=database,
            catalogue=catalogue,
            progress=progress,
            simulator_book=simulator_book,
            on_loaded=on_loaded,
            stop=stop,
        )
    settings = settings_for(database)
    jobs, base = read_jobs(job_file)
    known = catalogue_for(catalogue, settings)
    with ExitStack() as stack:
        engine = connect_to_tables(settings.database_url)
        if engine is not None:
            stack.callback(engine.dispose)
        made = estimate_all(jobs, known, base=base, engine=engine, now=datetime.now(UTC), on_rows=on_rows)
        return replace(made, run=end)


def demo(
    folder: str | Path = FOLDER,
    *,
    workers: int | None = None,
    progress: bool = False,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> RunEnd:
    """Caption a dozen pictures through the simulator, for no money, in a folder that has a database of its own."""
    place = current_folder() / folder
    lay_out(place)
    return run(
        place / "jobs.yaml",
        workers=workers,
        database=place / DEFAULT_DATABASE,
        progress=progress,
        grace=10.0,
        simulator_book=place / BOOK,
        on_loaded=on_loaded,
        stop=stop,
    )


@contextmanager
def simulate(
    *,
    port: int = 0,
    fault: str = "",
    book: str | Path | None = None,
    time_to_first_token: float = 0.0,
    tokens_per_second: float = 0.0,
    limits: bool = False,
) -> Iterator[Running]:
    """Serve the simulated provider on this machine while the block lasts, for tests of your own.

    `base_url(region)` of what it yields is the address for a client or a catalogue, `keys[region]` the accepted key,
    `book()` what was billed. `fault` is a fault of `batchrun simulate --list-faults`, such as `429-every=5`. It answers
    at once and without limits unless told otherwise: seconds to the first token, tokens per second of a stream (0 is as
    fast as possible), the vendor's rate limits.
    """
    settings = settings_for()
    with simulator(
        port=port,
        book=None if book is None else Path(book),
        fault=fault,
        time_to_first_token=time_to_first_token,
        tokens_per_second=tokens_per_second,
        limits=limits,
        environment=without_secrets(settings.environment, catalogue_for(None, settings)),
    ) as running:
        yield running
