"""`doctor`: what stands in the way of a run on this machine, and whether the database agrees with itself.

Every check is one or more findings, in words, with what mends it. Nothing is written, and no database is made, unless
`mend` is asked for; then the rows are mended in one transaction and looked at again.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun import database
from batchrun.call import FREE_OF_CHARGE
from batchrun.catalogue import Catalogue
from batchrun.errors import EXIT_DONE, EXIT_ITEMS_FAILED, CatalogueError, DatabaseError
from batchrun.examining import checking
from batchrun.examining.checking import Finding, Level, bad, bad_error, check_space, ok, warn
from batchrun.settings import Settings
from batchrun.showing import clean, listing
from batchrun.spill import PATTERN, spill_folder
from batchrun.steering.operating import this_actor
from batchrun.store import health, mending
from batchrun.store.health import Damage
from batchrun.store.workers import dead_here
from batchrun.tables import SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

SLOW_COMMIT = 0.1
"""Seconds above which a commit holds up a fast run."""
CLOCKS_APART = timedelta(seconds=5)
AHEAD = timedelta(minutes=1)
"""How far ahead of now a row may be."""
MUCH_WAL = 256 * 10**6
"""Bytes of SQLite's log above which some reader keeps it from being cleared."""
MEND = "batchrun doctor --mend"
RESTORE = "stop all runs, keep a copy of the file, restore a backup, or: sqlite3 batchrun.db .recover | sqlite3 new.db"
REMEDIES = {
    Damage.NO_ANSWER: f"{MEND}: takes another complete answer, else the item fails and can be retried",
    Damage.WRONG_ANSWER: f"{MEND}: takes another complete answer, else the item fails and can be retried",
    Damage.UNCLAIMED_ANSWER: f"{MEND}: the item gets that answer",
    Damage.CALLS_OF_DEAD: f"run the job file again, or: {MEND}",
    Damage.CLAIMED_WITHOUT_CALL: f"{MEND}: the items are pending again",
    Damage.MISSING_USAGE: f"{MEND}: books from nothing to what was reserved",
    Damage.EXTRA_USAGE: f"{MEND}: removes them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    findings: Sequence[Finding]
    mended: Sequence[str] = field(default=())
    """What was changed, in words."""

    @property
    def exit_code(self) -> int:
        return EXIT_ITEMS_FAILED if any(found.level is Level.BAD for found in self.findings) else EXIT_DONE


def examine(settings: Settings, *, version: str, mend: bool, offline: bool) -> Examination:
    """All checks. `version` is that of batchrun. Raises DatabaseError only where mending was asked for and can't be."""
    findings = [
        *checking.check_versions(version),
        *checking.check_start_up(),
        *checking.check_proxies(settings.environment),
        *checking.check_telemetry(settings.environment),
        *checking.check_memory(),
    ]
    found, catalogue = checking.check_catalogue(settings)
    findings += found
    mended: Sequence[str] = ()
    used: list[health.UsedProvider] | None = None
    try:
        with opened(settings) as (engine, where):
            findings += [*where, *check_kept_answers(spill_folder(engine))]
            if mend:
                mended = mend_rows(engine)
            inside, used = look_inside(engine, settings)
            findings += inside
    except DatabaseError as error:
        if mend:
            raise
        findings.append(without_database(error))
    findings += check_providers(catalogue, settings, used, offline=offline)
    return Examination(findings=findings, mended=mended)


def without_database(error: DatabaseError) -> Finding:
    """A machine that has run nothing yet has none."""
    if error.code == "no-database":
        return ok("database", f"{clean(error.message, 300)}; the first `batchrun run` makes it")
    return bad_error("database", error)


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Engine, list[Finding]]]:
    """The database as it is, with what can be said of it from outside; never made, never upgraded."""
    url = database.parse_url(settings.database_url)
    path = database.sqlite_path(url)
    if path is not None:
        database.prepare_file(path, create=False)
    engine = database.make_engine(url)
    try:
        began = time.monotonic()
        revision = database.read_revision(engine)
        took = time.monotonic() - began
        findings = [ok("database", f"{clean(database.shown_url(url), 300)}, answers in {1000 * took:.0f} ms")]
        if path is not None:
            findings += check_file(path)
        if revision != SCHEMA:
            database.require_upgradable(revision, automatic=False)
        yield engine, [*findings, ok("schema", f"revision {revision}, as this version needs")]
    finally:
        engine.dispose()


def check_file(path: Path) -> list[Finding]:
    """Mode, log and disk of an SQLite file."""
    findings = []
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        found = f"others may {'write' if mode & 0o022 else 'read'} it (mode {mode:o}): it holds prompts and answers"
        findings.append(warn("file", found, f"chmod 600 {clean(str(path), 300)}"))
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        findings.append(
            bad("file", "it can't be written by this user", f"chmod u+w {clean(str(path), 300)} and its folder")
        )
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > MUCH_WAL:
        found = f"its log has grown to {size / 1e6:,.0f} MB: a reader keeps it from being cleared"
        findings.append(warn("file", found, "end long exports and other programs that have the database open"))
    return [*findings, check_space("disk", path.parent), *check_sync(path.parent)]


def check_kept_answers(folder: Path) -> list[Finding]:
    """Files of answers that the database wouldn't take at the time."""
    kept = sorted(path.name for path in folder.glob(PATTERN))
    if not kept:
        return []
    found = f"answers that weren't stored are kept beside the database: {listing(kept)}"
    return [warn("answers", found, "run the job file again with the database they belong to: that stores them")]


def check_sync(folder: Path) -> list[Finding]:
    """How long it takes to bring something to the disk, which every commit does; by a nameless file beside it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            return [commit_finding(time.monotonic() - began)]
    except OSError as error:
        return [
            bad(
                "commit",
                f"nothing can be written beside it: {error.strerror}",
                "free some space, check the folder's mode",
            )
        ]


def commit_finding(seconds: float) -> Finding:
    text = f"a commit takes about {1000 * seconds:.1f} ms"
    if seconds > SLOW_COMMIT:
        return warn("commit", text, "put the database on a local disk, or near the PostgreSQL server")
    return ok("commit", text)


def mend_rows(engine: Engine) -> list[str]:
    with database.writing(engine) as connection:
        made = mending.mend(connection, dead=dead_here(connection), free=FREE_OF_CHARGE, actor=this_actor())
    return [act.what for act in made]


def look_inside(engine: Engine, settings: Settings) -> tuple[list[Finding], list[health.UsedProvider] | None]:
    """What the rows say, and the providers of the jobs; None where the file is too damaged to be read."""
    findings = [] if engine.dialect.name == "sqlite" else check_server(engine)
    with database.reading(engine) as connection:
        if broken := health.integrity(connection):
            return [*findings, *(bad("integrity", clean(line, 300), RESTORE) for line in broken)], None
        dead = dead_here(connection)
        findings += [
            *check_clock(connection),
            *check_workers(connection, dead),
            *check_rows(connection, dead),
            *check_folders(connection, settings),
            *check_pauses(connection),
        ]
        return findings, health.providers(connection)


def check_server(engine: Engine) -> list[Finding]:
    """How long a commit of a PostgreSQL server takes."""
    with database.writing(engine) as connection:
        health.flush(connection)
        began = time.monotonic()
    return [commit_finding(time.monotonic() - began)]


def check_clock(connection: Connection) -> list[Finding]:
    """This machine's clock against the database's, and against the newest row."""
    before = datetime.now(UTC)
    server = database.clock(connection)
    apart = max(before - server, server - datetime.now(UTC), timedelta(0))
    findings = []
    if apart > CLOCKS_APART:
        found = f"this machine's clock is {apart.total_seconds():.0f} s off that of the database server"
        findings.append(warn("clock", found, "set the clocks by NTP; runs use the server's, so nothing is lost"))
    newest = health.newest(connection)
    if newest is not None and newest > server + AHEAD:
        found = f"the newest call is of {newest:%Y-%m-%d %H:%M:%S}Z, which is to come: the clock was set back"
        findings.append(warn("clock", found, "check the clock; reports by day count those calls on a later day"))
    return findings or [ok("clock", f"{server:%Y-%m-%d %H:%M:%S}Z")]


def check_workers(connection: Connection, dead: Sequence[str]) -> list[Finding]:
    alive, gone = health.worker_counts(connection, dead)
    if gone:
        found = f"{gone} of {alive + gone} ended without a word: killed, out of memory, or the machine went down"
        return [warn("workers", found, f"run the job file again, or: {MEND}")]
    return [ok("workers", f"{alive} at work" if alive else "none at work")]


def check_rows(connection: Connection, dead: Sequence[str]) -> list[Finding]:
    """Items, calls, answers and money against each other."""
    findings = [
        bad("rows", f"{found.damage.value}: {found.rows:,}, as in {clean(found.job)}", REMEDIES[found.damage])
        for found in health.damages(connection, dead=dead, free=FREE_OF_CHARGE)
    ]
    for drift in health.drifts(connection):
        unit = f" {drift.currency}" if drift.currency else ""
        found = f"{clean(drift.job)}: {drift.counter} says {drift.booked.normalize():f}{unit}"
        findings.append(bad("money", f"{found}, its calls come to {drift.summed.normalize():f}", MEND))
    return findings or [ok("rows", "items, calls, answers and costs agree")]


def check_folders(connection: Connection, settings: Settings) -> list[Finding]:
    """Pictures that this machine can't see, and room for the files that jobs write."""
    findings, outputs = [], set()
    for job in health.folders(connection):
        here = settings.media_root(Path(job.media_root or "/"))
        if job.has_work and job.has_files and job.media_root and not here.is_dir():
            found = f"{clean(job.job)}: its folder {clean(str(here), 200)} isn't here"
            remedy = "mount it, say in BATCHRUN_MEDIA_ROOT where it is, or run on the machine that has it"
            findings.append(bad("media", found, remedy))
        if job.has_work and job.output:
            outputs.add(Path(job.output))
    return [*findings, *(check_space("output", folder) for folder in sorted(outputs))]


def check_pauses(connection: Connection) -> list[Finding]:
    findings = []
    for pause in health.pauses(connection):
        names = " ".join(clean(name) for name in pause.jobs)
        found = f"{clean(pause.name)} is paused ({pause.reason}): {clean(pause.message, 200)}"
        findings.append(warn("pauses", found, f"mend the cause, then: batchrun resume {names}"))
    return findings


def check_providers(
    catalogue: Catalogue, settings: Settings, used: Sequence[health.UsedProvider] | None, *, offline: bool
) -> list[Finding]:
    """Keys and hosts of the providers that the database's jobs use, else of those of which a key is set."""
    findings, endpoints = [], []
    for provider in used or ():
        try:
            endpoint = catalogue.endpoint(provider.name)
        except CatalogueError as error:
            make = bad if provider.has_work else warn
            findings.append(
                make("catalogue", clean(error.message, 200), "name your own file: --catalogue or BATCHRUN_CATALOGUE")
            )
            continue
        if not endpoint.base_url:
            continue  # a simulator that a run starts, with a key of its own
        endpoints.append(endpoint)
        if endpoint.key_env:
            findings.append(checking.check_key(endpoint, settings, needed=provider.has_work))
    if not used:
        endpoints = checking.with_key(catalogue, settings)
        findings += [checking.check_key(endpoint, settings, needed=False) for endpoint in endpoints]
    if not endpoints:
        none = "no job needs one" if used else f"none is set; a key is needed for {known(catalogue)}"
        findings.append(ok("keys", none))
    return [*findings, *([] if offline else checking.check_hosts(endpoints))]


def known(catalogue: Catalogue) -> str:
    return listing(sorted({endpoint.provider for endpoint in catalogue.endpoints.values() if not endpoint.simulated}))
