"""Opening a database: its address, its settings, its schema. SQLite beside the work, PostgreSQL when it is shared."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from batchrun.errors import DatabaseError
from batchrun.showing import clean
from batchrun.tables import SCHEMA

UNREACHABLE = "database-unreachable"
"""Code of the errors that may pass by themselves."""
FOREIGN_SCHEMA = ("no such table", "no such column", "table ", "near ")
"""How SQLite's messages begin about tables that aren't ours; it reports them like a lock that doesn't come free."""

BUSY_SECONDS = 60
"""How long a writer waits for another one. Loading a million rows is one transaction of tens of seconds."""

KNOWN_KINDS = frozenset({"postgres", "postgresql", "sqlite", "mysql", "mariadb", "oracle", "mssql", "cockroachdb"})
"""Words before `://` that a message may repeat; another one may be a password that stands in the wrong place."""
SECRET_OPTIONS = frozenset({"password", "sslpassword", "passfile"})

NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "lustre"})


def parse_url(text: str) -> URL:
    """The address as SQLAlchemy wants it. `postgres://` and `postgresql://` mean psycopg 3.

    Raises DatabaseError, which repeats nothing that may be secret.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise unreadable_address(text) from None
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in {"sqlite", "postgresql+psycopg"}:
        kind, _, driver = url.drivername.partition("+")
        named = f" of kind {kind!r}{' with this driver' if driver else ''}" if kind in KNOWN_KINDS else " of this kind"
        raise DatabaseError(
            f"no support for databases{named}",
            code="database-url",
            remedy="use sqlite:///path or postgresql://user@host/name",
        )
    if url.drivername != "sqlite":
        refuse_misplaced_secrets(text, url)
    return url


def unreadable_address(text: str) -> DatabaseError:
    """Shows the text only where it is a path, and so holds no password."""
    if text and not set(text) & set("@:?") and text.isprintable():
        return DatabaseError(
            f"{clean(text)} is no address of a database",
            code="database-url",
            remedy=f"for a file, write sqlite:///{clean(text)}",
        )
    return DatabaseError(
        "the database address can't be read",
        code="database-url",
        remedy="write it as sqlite:///path/to/batchrun.db or postgresql://user@host/name",
    )


def refuse_misplaced_secrets(text: str, url: URL) -> None:
    """A password that isn't read as one would be shown as a host, a name or an option."""
    if text.count("@") > (url.username is not None):
        raise DatabaseError(
            "the database address has an `@` too many, so that its host can't be told from its password",
            code="database-url",
            remedy="write @ in a password as %40, / as %2F, : as %3A: postgresql://user:pass%40word@host/name; "
            "or sqlite:///path/to/batchrun.db",
        )
    if found := sorted(SECRET_OPTIONS.intersection(name.lower() for name in url.query)):
        raise DatabaseError(
            f"the database address has a secret behind its `?`: {', '.join(found)}",
            code="database-url",
            remedy="write postgresql://user:password@host/name, or use ~/.pgpass; or sqlite:///path/to/batchrun.db",
        )


def shown_url(url: URL) -> str:
    """The address for people: without its password, and without its options, which may hold secrets too."""
    return url.set(query={}).render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite database; None for PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        return None
    if any((url.host, url.port, url.username, url.password, url.query)) or "\x00" in (url.database or ""):
        raise DatabaseError(
            "the address of an SQLite database is a path and nothing else",
            code="database-url",
            remedy="write three slashes and the path: sqlite:///path/to/batchrun.db",
        )
    if not url.database or url.database == ":memory:":
        raise DatabaseError(
            "a database in memory would lose every answer",
            code="database-url",
            remedy="name a file: sqlite:///path/to/batchrun.db",
        )
    return Path(url.database)


def connect(text: str, *, create: bool = False) -> Engine:
    """An engine on the database at `text`, with the schema that this version needs.

    With `create`, an SQLite file that doesn't exist is made and one of an older schema is upgraded. PostgreSQL is
    only ever upgraded by `batchrun db upgrade`. Raises DatabaseError.
    """
    url = parse_url(text)
    path = sqlite_path(url)
    if path is not None:
        prepare_file(path, create=create)
    engine = make_engine(url)
    try:
        revision = read_revision(engine)
        if revision != SCHEMA:
            require_upgradable(revision, automatic=create and path is not None)
            upgrade(text)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect_to_tables(text: str) -> Engine | None:
    """An engine on the database at `text`; None where there is none, or it has no tables yet. Nothing is made.

    Raises DatabaseError.
    """
    url = parse_url(text)
    path = sqlite_path(url)
    if path is not None and not exists_as_file(path):
        return None
    engine = make_engine(url)
    try:
        empty = read_revision(engine) is None
    finally:
        engine.dispose()
    return None if empty else connect(text)


def make_engine(url: URL) -> Engine:
    """An engine with our settings. Made after a fork, never before."""
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            url,
            json_serializer=dump_json,
            hide_parameters=True,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False, "isolation_level": None},
        )
        event.listen(engine, "connect", configure_sqlite)
        event.listen(engine, "begin", begin_sqlite)
        return engine
    return sa.create_engine(
        url,
        json_serializer=dump_json,
        hide_parameters=True,
        pool_size=5,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={
            "application_name": "batchrun",
            "connect_timeout": 10,
            # A process that is stopped in a transaction, or a machine that is gone, must not hold its locks for ever.
            "options": "-c idle_in_transaction_session_timeout=30s -c statement_timeout=120s -c lock_timeout=60s",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    )


_to_json = msgspec.json.Encoder().encode


def dump_json(value: object) -> str:
    """In a tenth of the standard library's time, which knows subclasses of texts and numbers beside that."""
    try:
        return _to_json(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def configure_sqlite(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    record.info["file"] = file_id(connection)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a stored answer is paid for: it survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_size_limit = 67108864")
    cursor.close()


def file_id(connection: sqlite3.Connection) -> tuple[str, int, int]:
    """The path of the database's file, and which file stood there."""
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    status = os.stat(path)
    return path, status.st_dev, status.st_ino


def refuse_replaced(path: str, device: int, inode: int) -> None:
    """A file that was deleted or replaced while it is open still takes what is written, and nobody will ever read it.
    Raises DatabaseError."""
    try:
        status = os.stat(path)
        same = (status.st_dev, status.st_ino) == (device, inode)
    except OSError:
        same = False
    if not same:
        raise DatabaseError(
            f"the database {path} was deleted, moved or replaced while it was in use",
            code="database-gone",
            remedy="put the file back, with its -wal file if there is one, and run the same command again",
        )


def begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes later fails at once when another one wrote between; so a writing one
    takes the lock when it begins."""
    refuse_replaced(*connection.info["file"])
    reading = connection.get_execution_options().get("batchrun_reading", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction: committed at the end, rolled back on an error."""
    with database_errors(), engine.begin() as connection:
        yield connection


def on_rollback(connection: Connection, undo: Callable[[], object]) -> None:
    """Have `undo` called if the transaction comes to nothing: what was kept in memory of it holds no more."""
    event.listen(connection, "rollback", lambda _: undo(), once=True)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the database. Never blocks a writer, never waits for one."""
    with database_errors(), engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection = connection.execution_options(batchrun_reading=True)
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                # an export that feeds a slow pipe idles between two rows, and holds no lock that anybody waits for
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield connection


@contextmanager
def database_errors() -> Iterator[None]:
    """Foreign errors of the connection, translated once. The address is masked: it may hold a password."""
    try:
        yield
    except DBAPIError as error:
        if not (isinstance(error, OperationalError | InternalError) or error.connection_invalidated):
            raise
        reason = str(error.orig).strip().splitlines()[0] if error.orig else "unknown"
        if reason.startswith(FOREIGN_SCHEMA):
            raise DatabaseError(
                f"the database has other tables than this version of batchrun needs: {reason}",
                code="database-damaged",
                remedy="restore it from a backup, or name another one with DATABASE_URL",
            ) from error
        raise DatabaseError(
            f"the database doesn't answer: {reason}",
            code=UNREACHABLE,
            remedy="check DATABASE_URL, and that the server runs and the disk isn't full",
        ) from error


def clock(connection: Connection) -> datetime:
    """Now, by the clock that all processes on this database share: the server's, or this machine's for SQLite."""
    if connection.dialect.name == "postgresql":
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)


def lock_loading(connection: Connection) -> None:
    """Hold until the transaction ends: two loads of one file at once must not both add its rows."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7301442)"))


def prepare_file(path: Path, *, create: bool) -> None:
    """Make the file if it isn't there, refuse what isn't a file or isn't ours. Raises DatabaseError."""
    try:
        if not exists_as_file(path):
            if not create:
                raise no_database(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseError(
            f"can't {'create' if create else 'open'} the database {path}: {error.strerror}",
            code="database-not-writable",
            remedy="run in a folder that you may write to, or set DATABASE_URL=sqlite:////other/folder/batchrun.db",
        ) from error
    refuse_network_filesystem(path)
    refuse_foreign(path)


def exists_as_file(path: Path) -> bool:
    """Whether a file is there; links are followed. Raises DatabaseError for a folder, a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISREG(mode):
        return True
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
    raise DatabaseError(
        f"{path} is {kind}, and a database is a file",
        code="database-not-a-file",
        remedy=f"name a file: sqlite:///{path}/batchrun.db" if stat.S_ISDIR(mode) else "name a file with DATABASE_URL",
    )


def no_database(path: Path) -> DatabaseError:
    return DatabaseError(
        f"there is no database at {path}",
        code="no-database",
        remedy="go to the folder where you ran `batchrun run`, or set DATABASE_URL",
    )


def refuse_network_filesystem(path: Path) -> None:
    """SQLite's locks don't hold on network file systems. Only Linux tells; elsewhere this passes."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return
    kind = filesystem_of(path.resolve(), mounts.read_text(encoding="utf-8", errors="replace"))
    if kind in NETWORK_FILESYSTEMS:
        raise DatabaseError(
            f"{path} is on a network file system ({kind}), where SQLite can lose data",
            code="database-network",
            remedy="set DATABASE_URL to a file on a local disk, or to a PostgreSQL database",
        )


def filesystem_of(path: Path, mounts: str) -> str:
    """The kind of the file system that holds `path`, from the text of /proc/mounts; a later mount covers an earlier."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = [field.replace("\\040", " ") for field in line.split()]
        if len(fields) > 2 and str(path).startswith(fields[1].rstrip("/") + "/") and len(fields[1]) >= len(best):
            best, kind = fields[1], fields[2]
    return kind


def refuse_foreign(path: Path) -> None:
    """Another program's database must not get our tables; and to open it as ours would already change it."""
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    except sqlite3.OperationalError:
        return  # opening it as ours tells better what is wrong
    except sqlite3.DatabaseError as error:
        raise damaged(error) from error
    if names and "alembic_version" not in names:
        raise DatabaseError(
            f"{path} is the database of another program: it has a table {names[0]!r}",
            code="database-foreign",
            remedy="name another file with DATABASE_URL",
        )


def damaged(error: object) -> DatabaseError:
    return DatabaseError(
        f"this isn't a database of batchrun, or it is damaged: {error}",
        code="database-damaged",
        remedy="restore it from a backup, or name another one with DATABASE_URL",
    )


def read_revision(engine: Engine) -> str | None:
    """The schema's revision in the database; None where there is none yet."""
    with database_errors():
        try:
            with engine.connect().execution_options(batchrun_reading=True) as connection:
                if not sa.inspect(connection).has_table("alembic_version"):
                    return None
                return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        except OperationalError:
            raise
        except DBAPIError as error:
            raise damaged(error.orig) from error


def require_upgradable(revision: str | None, *, automatic: bool) -> None:
    if revision is not None and revision <= SCHEMA and revision not in known_revisions():
        raise DatabaseError(
            f"the database has schema {clean(revision)}, which no version of batchrun up to this one has made",
            code="database-foreign",
            remedy="name another one with DATABASE_URL, or restore this one from a backup",
        )
    if revision is not None and revision > SCHEMA:
        raise DatabaseError(
            f"the database has schema {revision}, newer than this version of batchrun knows ({SCHEMA})",
            code="schema-newer",
            remedy="use the version of batchrun that made it, or upgrade this one",
        )
    if not automatic:
        state = "no tables yet" if revision is None else f"schema {revision}, this version needs {SCHEMA}"
        raise DatabaseError(f"the database has {state}", code="schema-older", remedy="run: batchrun db upgrade")


def known_revisions() -> set[str]:
    """Each migration is a file that begins with its revision."""
    return {path.stem.partition("_")[0] for path in (migrations_folder() / "versions").glob("*.py")}


def migrations_folder() -> Path:
    """Beside the package in a checkout, inside it when installed from a wheel."""
    inside = Path(__file__).with_name("_migrations")
    return inside if inside.is_dir() else Path(__file__).parent.parent / "migrations"


def upgrade(text: str, revision: str = "head") -> None:
    """Bring the schema to `revision`, in one transaction on either database."""
    from alembic import command
    from alembic.config import Config

    engine = make_engine(parse_url(text))
    try:
        config = Config()
        config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
        with writing(engine) as connection:
            config.attributes["connection"] = connection
            if revision == "base":
                command.downgrade(config, revision)
            else:
                command.upgrade(config, revision)
    finally:
        engine.dispose()
