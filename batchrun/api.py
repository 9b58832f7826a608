"""What the commands do, as functions: `import batchrun` offers them under the same names.

Each takes `database`: an address, or the path of an SQLite file as a `Path` (None: `DATABASE_URL`, else
`.batchrun/batchrun.db` in the current folder), and where models are named `catalogue`, a catalogue file of your own
(None: `BATCHRUN_CATALOGUE`). What goes wrong is raised as a BatchrunError with a code, a message and a remedy. Nothing
is printed, except for the progress that `run` is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, get_args
from urllib.parse import quote

from sqlalchemy import URL, Engine

from batchrun import __version__
from batchrun.catalogue import Catalogue, load_catalogue
from batchrun.catalogue.lines import ModelLine, model_lines
from batchrun.database import (
    connect,
    connect_to_tables,
    make_engine,
    parse_url,
    prepare_file,
    read_revision,
    reading,
    require_upgradable,
    shown_url,
    sqlite_path,
    upgrade,
)
from batchrun.demonstration import BOOK, FOLDER, lay_out
from batchrun.drain import GRACE, Stop
from batchrun.errors import UsageError
from batchrun.estimating import estimate_all
from batchrun.estimating.outcome import Estimate
from batchrun.examining import Examination, examine
from batchrun.jobfile.reader import read_job_file, read_job_mapping
from batchrun.jobfile.schema import job_schema
from batchrun.jobfile.spec import JobFile
from batchrun.loading import Loaded, prepared_all
from batchrun.loading import load as load_jobs
from batchrun.output.export import ExportSummary, Format
from batchrun.output.export import export as export_job
from batchrun.output.sidecar import Sidecars
from batchrun.plan import require_keys
from batchrun.probing import Offer, ask
from batchrun.progress import progress_of, showing
from batchrun.reports.cost import By, CostLine, cost_by
from batchrun.reports.jobs import find_jobs, one_job
from batchrun.reports.prices import PriceLine, booked_prices, price_lines
from batchrun.reports.results import ItemResult
from batchrun.reports.results import results as read_results
from batchrun.reports.sizes import DatabaseStatus, row_counts
from batchrun.reports.status import JobStatus
from batchrun.reports.status import status as read_status
from batchrun.running import RunEnd, ends, plan_of, signals
from batchrun.running import run as drain_jobs
from batchrun.settings import DEFAULT_DATABASE, Settings, current_folder, read_settings
from batchrun.showing import clean
from batchrun.simulated import Running, simulator, with_simulator, without_secrets
from batchrun.states import State
from batchrun.steering import operating, setting, settling
from batchrun.steering.bill import AMOUNT_COLUMN, ID_COLUMN, read_bill
from batchrun.steering.operating import Cancelled, Paused, Resumed, Retried, this_actor
from batchrun.steering.setting import Changed, Current
from batchrun.steering.settling import Settlement
from batchrun.store.sample import draw
from batchrun.store.settle import Rule
from batchrun.store.workers import dead_here
from batchrun.tables import SCHEMA
from batchrun.watching import follow

Place = str | Path | None
"""A database: its address, or the path of an SQLite file; None for the one of the environment."""
Names = str | Iterable[str]
"""One name, or several."""

Jobs = str | Path | Mapping[str, object]
"""A job file: its path, or what would stand in it; its paths are then relative to the current folder."""


def read_jobs(job_file: Jobs) -> tuple[JobFile, Path]:
    """The checked job file, and the folder that its paths are relative to. Raises SpecError."""
    if isinstance(job_file, Mapping):
        return read_job_mapping(job_file), current_folder()
    path = Path(job_file)
    return read_job_file(path), path.resolve().parent


def settings_for(database: Place = None) -> Settings:
    """What the environment says, with another database if one is named."""
    settings = read_settings(os.environ, current_folder())
    if database is None:
        return settings
    address = f"sqlite:///{quote(str(database))}" if isinstance(database, Path) else database
    return replace(settings, database_url=address)


def catalogue_for(file: str | Path | None, settings: Settings) -> Catalogue:
    return load_catalogue(settings.catalogue if file is None else Path(file))


@contextmanager
def opened(database: Place = None) -> Iterator[Engine]:
    """The database, which must exist. Raises DatabaseError."""
    engine = connect(settings_for(database).database_url)
    try:
        yield engine
    finally:
        engine.dispose()


def load(
    job_file: Jobs,
    *,
    database: Place = None,
    catalogue: str | Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Check a job file and load its items, without making a call. `on_rows` hears how many rows were read so far.

    Raises SpecError, CatalogueError, UsageError, ChangedError, DatabaseError; then nothing was written.
    """
    settings = settings_for(database)
    jobs, base = read_jobs(job_file)
    known = catalogue_for(catalogue, settings)
    prepared_all(jobs, known)  # a file that can't be loaded leaves no database behind
    engine = connect(settings.database_url, create=True)
    try:
        return load_jobs(engine, jobs, known, base=base, on_rows=on_rows)
    finally:
        engine.dispose()


def run(
    job_file: Jobs,
    *,
    sample: int | None = None,
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
    """Load a job file, make its calls in this process, store the answers; returns where the jobs stand then.

    `sample` makes the calls of only so many items of each job, chosen as if by lot, and always the same ones first: a
    sample is never bought twice, and a later run goes on with the others. `progress` shows how far it is on standard
    error; `alarm` is for how long nothing may end before a line there says why. `grace` is how many seconds calls in
    flight get after the first Ctrl-C. `simulator_book` is where a simulator that is started here writes its bills.
    `stop` ends the run from another thread; without it, Ctrl-C does, and KeyboardInterrupt is raised once everything is
    stored.

    Raises what `load` raises, UsageError where a key is missing, and DatabaseError where the database stays away.
    """
    check_sample(sample)
    settings = settings_for(database)
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
            engine, loaded, known, settings, sample=sample, grace=grace, progress=progress, alarm=alarm, stop=stop
        )
        return replace(end, files=written_files(engine, loaded, jobs))


def check_sample(size: int | None) -> None:
    if size is not None and size < 1:
        raise UsageError(
            f"a sample of {size} items", code="sample-size", remedy="take at least one item, or leave the sample out"
        )


def drained(
    engine: Engine,
    loaded: Sequence[Loaded],
    catalogue: Catalogue,
    settings: Settings,
    *,
    sample: int | None,
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
    shown, asked = progress_of(ends(engine, ids, drawn)), stop or Stop()

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
        end = drain_jobs(engine, ids, catalogue, settings, sample=drawn, stop=asked, tally=shown.tally, grace=grace)
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


def status(jobs: Iterable[str] | None = None, *, database: Place = None) -> list[JobStatus]:
    """How far the jobs of these names are, or all; what holds them, and what they have cost so far."""
    with opened(database) as engine, reading(engine) as connection:
        return read_status(connection, None if jobs is None else list(jobs), dead=dead_here(connection))


def watch(
    jobs: Iterable[str] | None = None,
    *,
    interval: timedelta = timedelta(seconds=2),
    alarm: timedelta | None = None,
    on_alarm: Callable[[str], None] = lambda _: None,
    database: Place = None,
) -> Iterator[list[JobStatus]]:
    """Follow the jobs of these names, or all, whoever works on them: a `status` every `interval`, with rates and the
    time that is left, until nothing is left that anybody could do.

    `on_alarm` hears a line when nothing has ended for as long as `alarm`, and one when work goes on.
    """
    with opened(database) as engine:
        names = None if jobs is None else list(jobs)
        yield from follow(engine, names, interval=interval, alarm=alarm, on_alarm=on_alarm)


def results(
    job: str,
    *,
    states: Collection[State | str] | None = None,
    limit: int | None = None,
    simulated: bool = False,
    database: Place = None,
) -> list[ItemResult]:
    """What came of each item of a job, in the order of its source; `pandas.DataFrame` takes the list as it is.

    `states` are those to take, such as `{"failed"}`; None means all. `simulated` takes the simulated job of that name
    where a real one has it too.
    """
    wanted = states_of(states)
    with opened(database) as engine, reading(engine) as connection:
        row = one_job(connection, job, simulated=simulated)
        return list(read_results(connection, row, states=wanted, limit=limit))


def export(
    job: str,
    output_format: Format = "jsonl",
    out: str | Path | BinaryIO | None = None,
    *,
    states: Collection[State | str] | None = None,
    simulated: bool = False,
    overwrite: bool = False,
    raw: bool = False,
    errors: str | Path | None = None,
    database: Place = None,
    catalogue: str | Path | None = None,
) -> ExportSummary:
    """Write the results of a job to a file, whole or not at all; for `sidecar`, a text file for each item to a folder.

    `out` is a path, or a binary file that stays open; for `sidecar` None takes the folder that the job names. `raw`
    leaves cells of a CSV alone that a spreadsheet would take for formulas. `errors` is where the form `openai` tells of
    items without an answer. The catalogue is needed for `openai-requests` only, which renders the requests of a job.
    """
    one_of("output_format", output_format, get_args(Format))
    if out is None and output_format != "sidecar":
        raise UsageError(f"{output_format} needs a file to go to", code="usage", remedy="give it as `out`")
    target, wanted = Path(out) if isinstance(out, str) else out, states_of(states)
    with opened(database) as engine:
        return export_job(
            engine,
            job,
            output_format,
            target,
            states=wanted,
            simulated=simulated,
            overwrite=overwrite,
            raw=raw,
            errors=None if errors is None else Path(errors),
            plan_of=lambda row: plan_of(row, catalogue_for(catalogue, settings_for(database))),
        )


def states_of(states: Collection[State | str] | None) -> frozenset[State] | None:
    if states is None:
        return None
    named = [states] if isinstance(states, str) else states
    for state in named:
        one_of("states", state, [known.value for known in State])
    return frozenset(map(State, named))


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises UsageError where `value` isn't one of the words that the argument `name` takes."""
    if value not in known:
        raise UsageError(f"{name} can't be `{clean(value)}`", code="usage", remedy=f"there are: {', '.join(known)}")


def report(
    by: By = "job",
    *,
    jobs: Iterable[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    database: Place = None,
) -> list[CostLine]:
    """What the calls cost, failed ones included, from `since` to `until`, days of UTC, both inclusive.

    `pandas.DataFrame` takes the list as it is. Simulated money stands in lines of its own; leave them out of sums.
    """
    one_of("by", by, get_args(By))
    with opened(database) as engine, reading(engine) as connection:
        ids = None if jobs is None else [row.id for row in find_jobs(connection, list(jobs))]
        return cost_by(connection, by, job_ids=ids, since=since, until=until)


def models(provider: str | None = None, *, catalogue: str | Path | None = None) -> list[ModelLine]:
    """Models that a job can name at a provider, such as `model-studio/singapore` or `model-studio`, or at all.

    Raises CatalogueError for a provider that isn't there.
    """
    return model_lines(catalogue_for(catalogue, settings_for()), provider, datetime.now(UTC))


def probe(provider: str, *, catalogue: str | Path | None = None) -> Offer:
    """Ask the server of a provider which models it has, with its key; no model is called.

    Raises CatalogueError for a provider that isn't there, UsageError without a key, and ProviderError, with its kind,
    where the server can't be reached, refuses the key, or has no such list.
    """
    settings = settings_for()
    return ask(catalogue_for(catalogue, settings), provider, settings)


def prices(model: str | None = None, *, catalogue: str | Path | None = None, database: Place = None) -> list[PriceLine]:
    """Prices of the catalogue, and those that the database has booked with, of one model or of all.

    Without a database there, and none named, those of the catalogue alone. Raises UsageError for an unknown model.
    """
    known = catalogue_for(catalogue, settings_for())
    path = sqlite_path(parse_url(settings_for(database).database_url))
    stored = {}
    if database is not None or path is None or path.exists():
        with opened(database) as engine, reading(engine) as connection:
            stored = booked_prices(connection)
    found = price_lines(known, stored, datetime.now(UTC), model)
    if model is not None and not found:
        raise UsageError(
            f"no price of a model `{clean(model)}`", code="unknown-model", remedy="`batchrun models` lists the models"
        )
    return found


def schema() -> dict[str, object]:
    """The JSON Schema of a job file, for editors and checkers."""
    return job_schema()


def demo(
    folder: str | Path = FOLDER,
    *,
    progress: bool = False,
    on_loaded: Callable[[Sequence[Loaded]], None] = lambda _: None,
    stop: Stop | None = None,
) -> RunEnd:
    """Caption a dozen pictures through the simulator, for no money, in a folder that has a database of its own."""
    place = current_folder() / folder
    lay_out(place)
    return run(
        place / "jobs.yaml",
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


def db_status(*, database: Place = None) -> DatabaseStatus:
    """Where the database is, its schema, and how much there is in it."""
    url = parse_url(settings_for(database).database_url)
    with unchecked(url, create=False) as engine:
        revision, rows = read_revision(engine), {}
        if revision == SCHEMA:
            with reading(engine) as connection:
                rows = row_counts(connection)
    return DatabaseStatus(address=shown_url(url), schema=revision, needed=SCHEMA, rows=rows)


def db_upgrade(*, database: Place = None) -> tuple[str | None, str]:
    """Bring the schema to what this version needs, and make an SQLite file that doesn't exist; safe to repeat.

    Returns the revision before (None for no tables) and after.
    """
    address = settings_for(database).database_url
    with unchecked(parse_url(address), create=True) as engine:
        before = read_revision(engine)
    if before != SCHEMA:
        require_upgradable(before, automatic=True)
        upgrade(address)
    return before, SCHEMA


@contextmanager
def unchecked(url: URL, *, create: bool) -> Iterator[Engine]:
    """The database at this address, whatever its schema is."""
    path = sqlite_path(url)
    if path is not None:
        prepare_file(path, create=create)
    engine = make_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def names_of(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def retry(
    jobs: Names,
    *,
    states: Collection[State] = (State.FAILED,),
    kinds: Names | None = None,
    items: Names | None = None,
    dry_run: bool = False,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Retried]:
    """Let items be called again: the failed ones, unless `states` names others (truncated, cancelled; waiting ones
    become due at once). `kinds` are kinds of error, `items` custom ids of one job.

    Their tries begin anew. An item for which a call is still in flight is left alone. `actor` is who does it, for the
    audit (None: the user of this process). Nothing is called by this; `run` does that.
    """
    known = catalogue_for(catalogue, settings_for(database))
    with opened(database) as engine:
        return operating.retry(
            engine,
            names_of(jobs),
            known,
            states=[State(state) for state in states],
            kinds=None if kinds is None else names_of(kinds),
            items=None if items is None else names_of(items),
            dry_run=dry_run,
            simulated=simulated,
            actor=actor or this_actor(),
        )


def cancel(
    jobs: Names,
    *,
    items: Names | None = None,
    simulated: bool = False,
    database: Place = None,
    actor: str | None = None,
) -> list[Cancelled]:
    """Cancel all items that have not ended, or those of these custom ids. Calls in flight end by themselves, and an
    answer that arrives whole is kept."""
    with opened(database) as engine:
        return operating.cancel(
            engine,
            names_of(jobs),
            items=None if items is None else names_of(items),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def pause(
    jobs: Names | None,
    *,
    reason: str | None = None,
    simulated: bool = False,
    database: Place = None,
    actor: str | None = None,
) -> list[Paused]:
    """Let no new call of these jobs leave, until they are resumed; None for all jobs that have something left to do.
    Calls in flight finish."""
    names = None if jobs is None else names_of(jobs)
    with opened(database) as engine:
        return operating.pause(engine, names, reason=reason, simulated=simulated, actor=actor or this_actor())


def resume(
    jobs: Names | None,
    *,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Resumed]:
    """Lift every pause of these jobs, or of all paused ones for None: of people, of errors, of a used-up budget, and
    that of a refused key or an unpaid account, which other jobs may share."""
    names = None if jobs is None else names_of(jobs)
    with opened(database) as engine:
        return operating.resume(
            engine,
            names,
            lambda: catalogue_for(catalogue, settings_for(database)),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def settable(target: str, *, simulated: bool = False, database: Place = None) -> list[Current]:
    """What `set` can change of a job or a profile, as it is now."""
    with opened(database) as engine:
        return setting.current(engine, target, simulated=simulated)


def set_(
    target: str,
    changes: Mapping[str, object],
    *,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> list[Changed]:
    """Change limits of a job or a profile, or budget and priority of a job, also while it runs; as `batchrun.set`.

    `changes` are such as `{"concurrency": 8, "budget": "5.00 USD", "tokens_per_day": None}`, where None takes a limit
    away. A profile is named as `model-studio/singapore/qwen3-vl-plus`. Loading the job file again keeps what was set,
    until the file itself says something else.
    """
    with opened(database) as engine:
        return setting.set_values(
            engine,
            target,
            changes,
            lambda: catalogue_for(catalogue, settings_for(database)),
            simulated=simulated,
            actor=actor or this_actor(),
        )


def settle(
    jobs: Names,
    *,
    rule: Rule | None = None,
    bill: str | Path | None = None,
    id_column: str = ID_COLUMN,
    amount_column: str = AMOUNT_COLUMN,
    currency: str | None = None,
    dry_run: bool = False,
    simulated: bool = False,
    database: Place = None,
    catalogue: str | Path | None = None,
    actor: str | None = None,
) -> Settlement:
    """Make costs exact that their calls left open: by the `rule` `zero` or `high`, or by the vendor's `bill`, a CSV
    file with an amount for each request id. What is exact already is never changed.

    `currency` is needed where no price of the model is known. Raises SpecError with the lines of a bill that can't be
    read; then nothing was changed.
    """
    if (rule is None) == (bill is None):
        raise UsageError("either a rule or a bill settles costs", code="usage", remedy="give one of the two")

    def known() -> Catalogue:
        return catalogue_for(catalogue, settings_for(database))

    who, names = actor or this_actor(), names_of(jobs)
    with opened(database) as engine:
        if rule is not None:
            return settling.settle_as(
                engine, names, rule, known, currency=currency, dry_run=dry_run, simulated=simulated, actor=who
            )
        path = Path(str(bill))
        told = read_bill(content(path), path, id_column=id_column, amount_column=amount_column)
        return settling.settle_by_bill(
            engine, names, told, known, currency=currency, dry_run=dry_run, simulated=simulated, actor=who
        )


def content(path: Path) -> bytes:
    """Raises UsageError for a file that can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", code="not-readable", remedy="name the bill as a CSV file"
        ) from error


def doctor(
    *, mend: bool = False, offline: bool = False, database: Place = None, catalogue: str | Path | None = None
) -> Examination:
    """What stands in the way of a run on this machine, and whether the database agrees with itself.

    `mend` mends what is wrong with rows first, in one transaction. `offline` leaves the providers' hosts alone. A
    database that doesn't exist is no fault, and is never made. Raises DatabaseError where nothing can be mended.
    """
    settings = settings_for(database)
    if catalogue is not None:
        settings = replace(settings, catalogue=Path(catalogue))
    return examine(settings, version=__version__, mend=mend, offline=offline)
