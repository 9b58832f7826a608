"""Opening a database: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from batchrun.database import (
    clock,
    connect,
    filesystem_of,
    lock_loading,
    parse_url,
    read_revision,
    reading,
    shown_url,
    sqlite_path,
    upgrade,
    writing,
)
from batchrun.errors import EXIT_UNREACHABLE, EXIT_USAGE, DatabaseError
from batchrun.tables import SCHEMA, audit
from tests.integration.rows import opened

SECRET = "canary-7d1f0c9ab2e6"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


def refusal(url: str, *, create: bool = False) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        connect(url, create=create)
    return caught.value


def told(error: BaseException) -> str:
    """All that a user may see of an error, its causes included."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), repr(cause), str(getattr(cause, "remedy", ""))]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(texts)


# Addresses


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_way_to_write_postgresql_is_understood(scheme: str) -> None:
    url = parse_url(f"{scheme}://me:word@host:5433/name?sslmode=require")
    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://me:word@host:5433/name?sslmode=require"


@pytest.mark.parametrize(
    "text",
    [
        f"mysql://me:{SECRET}@host/name",
        f"postgresql+asyncpg://me:{SECRET}@host/name",
        f"postgresql+psycopg2://me:{SECRET}@host/name",
        "sqlite+aiosqlite:///x.db",
        "x.db",
        "/srv/x.db",
        "",
        f"postgresql://me:{SECRET}@host:port/name",
        f"postgresql://me@host:{SECRET}/name",
        f"postgresql:/me:{SECRET}@host/name",
        f"postgresql://me:p@{SECRET}@host/name",
        f"postgresql://me:p@x/{SECRET}@host/name",
        f"postgresql://me/x:{SECRET}@host/name",
        f"postgresql://me:p?{SECRET}@x@host/name",
        f"postgresql://me@host/name?password={SECRET}",
        f"postgresql://host/name?sslpassword={SECRET}",
        f"postgresql://host/name?PassFile={SECRET}",
        f"postgres+{SECRET}://host/name",
        f"{SECRET}://host/name",
    ],
)
def test_an_address_that_can_not_be_used_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        parse_url(text)
    assert caught.value.code == "database-url"
    assert "sqlite:///" in caught.value.remedy
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:///x.db?mode=memory&uri=true",
        "sqlite://x.db",
        "sqlite://folder/x.db",
    ],
)
def test_an_address_that_names_no_file_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(text, create=True).code == "database-url"
    assert list(tmp_path.iterdir()) == []


def test_four_slashes_are_an_absolute_path() -> None:
    assert sqlite_path(parse_url("sqlite:////srv/x.db")) == Path("/srv/x.db")


def test_three_slashes_are_a_path_from_here() -> None:
    assert sqlite_path(parse_url("sqlite:///x.db")) == Path("x.db")


def test_postgresql_has_no_file() -> None:
    assert sqlite_path(parse_url("postgresql://host/name")) is None


def test_the_password_of_an_unreachable_server_is_not_told() -> None:
    error = refusal(f"postgresql://me:{SECRET}@127.0.0.1:1/name")
    assert (error.code, error.exit_code) == ("database-unreachable", EXIT_UNREACHABLE)
    assert SECRET not in told(error)


def test_a_refused_password_is_not_told(blank_postgres_url: str) -> None:
    url = make_url(blank_postgres_url).set(username="nobody", password=SECRET).render_as_string(hide_password=False)
    error = refusal(url)
    assert error.code == "database-unreachable"
    assert SECRET not in told(error)


# A new file


def test_a_new_database_gets_its_folders_and_its_schema(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path / 'a' / 'b' / 'batchrun.db'}", create=True) as engine:
        assert read_revision(engine) == SCHEMA


def test_a_new_database_is_for_its_owner_only(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'batchrun.db'}"
    with opened(url, create=True) as engine, writing(engine) as connection:
        connection.execute(sa.insert(audit).values(at=datetime.now(UTC), actor="a", action="b", detail={}))
        modes = {file.name: stat.filemode(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["batchrun.db", "batchrun.db-wal", "batchrun.db-shm"], "-rw-------")


def test_who_only_reads_makes_no_database(tmp_path: Path) -> None:
    error = refusal(f"sqlite:///{tmp_path / 'batchrun.db'}")
    assert (error.code, error.exit_code) == ("no-database", EXIT_USAGE)
    assert str(tmp_path / "batchrun.db") in error.message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(f"sqlite:///{tmp_path / 'file' / 'batchrun.db'}", create=True)
    assert (error.code, str(tmp_path) in error.message) == ("database-not-writable", True)


def test_a_database_may_be_opened_for_the_first_time_by_several_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def first(_: int) -> str | None:
        start.wait()
        with opened(f"sqlite:///{tmp_path / 'batchrun.db'}", create=True) as engine:
            return read_revision(engine)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(first, range(4))) == [SCHEMA] * 4


# A database that is not ours


@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes, and they are long enough to be no empty file.\n" * 20)
    before = path.read_bytes()
    error = refusal(f"sqlite:///{path}", create=create)
    assert error.code == "database-damaged"
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    error = refusal(f"sqlite:///{path}", create=True)
    assert (error.code, "bookmarks" in error.message) == ("database-foreign", True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_is_no_database(tmp_path: Path, create: bool) -> None:
    error = refusal(f"sqlite:///{tmp_path}", create=create)
    assert (error.message, error.exit_code) == (f"{tmp_path} is a folder, and a database is a file", EXIT_USAGE)


def test_a_pipe_is_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in refusal(f"sqlite:///{tmp_path / 'pipe'}").message


def test_a_device_is_no_database() -> None:
    assert "is a device" in refusal("sqlite:////dev/null", create=True).message


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("database-url", EXIT_USAGE),
        ("no-database", EXIT_USAGE),
        ("schema-older", EXIT_USAGE),
        ("schema-newer", EXIT_USAGE),
        ("database-damaged", EXIT_USAGE),
        ("database-unreachable", EXIT_UNREACHABLE),
    ],
)
def test_what_trying_again_does_not_mend_is_wrong_use(code: str, expected: int) -> None:
    assert DatabaseError("x", code=code).exit_code == expected


def test_an_address_is_shown_without_password_and_options() -> None:
    url = parse_url(f"postgresql://me:{SECRET}@host/name?options=-c%20x%3D{SECRET}")
    assert shown_url(url) == "postgresql+psycopg://me:***@host/name"


def test_an_empty_file_is_a_database_without_tables(tmp_path: Path) -> None:
    (tmp_path / "batchrun.db").touch()
    error = refusal(f"sqlite:///{tmp_path / 'batchrun.db'}")
    assert (error.code, error.remedy) == ("schema-older", "run: batchrun db upgrade")


def test_a_database_without_tables_is_told_so(blank_postgres_url: str) -> None:
    error = refusal(blank_postgres_url, create=True)
    assert (error.code, error.message) == ("schema-older", "the database has no tables yet")


def set_revision(url: str, revision: str) -> None:
    with opened(url) as engine, writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(database_url: str, create: bool) -> None:
    set_revision(database_url, "9999")
    error = refusal(database_url, create=create)
    assert error.code == "schema-newer"
    assert error.message == f"the database has schema 9999, newer than this version of batchrun knows ({SCHEMA})"


@pytest.mark.parametrize("create", [True, False])
def test_a_schema_that_nobody_made_is_refused_before_it_is_upgraded(database_url: str, create: bool) -> None:
    set_revision(database_url, "0000")
    error = refusal(database_url, create=create)
    assert (error.code, error.exit_code) == ("database-foreign", EXIT_USAGE)
    assert error.message == "the database has schema 0000, which no version of batchrun up to this one has made"


# File systems

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/share nfs4 rw 0 0
//server/x /mnt/share/windows cifs rw 0 0
/dev/sdb1 /mnt/share/local xfs rw 0 0
server:/y /mnt/two\\040words nfs rw 0 0
/dev/sdc1 /mnt/covered ext4 rw 0 0
server:/z /mnt/covered 9p rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/x.db", "ext4"),
        ("/mnt/share/x.db", "nfs4"),
        ("/mnt/shared/x.db", "ext4"),
        ("/mnt/share/windows/deep/x.db", "cifs"),
        ("/mnt/share/local/x.db", "xfs"),
        ("/mnt/two words/x.db", "nfs"),
        ("/mnt/covered/x.db", "9p"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path: str, expected: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == expected


def test_a_local_folder_is_accepted(tmp_path: Path) -> None:
    connect(f"sqlite:///{tmp_path / 'batchrun.db'}", create=True).dispose()


# Transactions


def count(engine: Engine) -> int:
    with reading(engine) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(audit)).scalar_one()


def add_line(connection: sa.Connection) -> None:
    connection.execute(sa.insert(audit).values(at=clock(connection), actor="a", action="b", detail={}))


def test_what_is_written_is_there(engine: Engine) -> None:
    with writing(engine) as connection:
        add_line(connection)
    assert count(engine) == 1


def test_an_error_takes_back_what_was_written(engine: Engine) -> None:
    with pytest.raises(KeyError), writing(engine) as connection:  # noqa: PT012 - the error comes after a write
        add_line(connection)
        raise KeyError
    assert count(engine) == 0


def test_a_reader_sees_one_state_and_does_not_hold_up_a_writer(engine: Engine) -> None:
    wanted = sa.select(sa.func.count()).select_from(audit)
    with reading(engine) as reader:
        before = reader.execute(wanted).scalar()
        with writing(engine) as connection:
            add_line(connection)
        assert (before, reader.execute(wanted).scalar()) == (0, 0)
    assert count(engine) == 1


def test_a_reader_does_not_wait_for_a_writer(engine: Engine) -> None:
    with writing(engine) as connection:
        add_line(connection)
        assert count(engine) == 0


def test_two_loads_do_not_overlap(engine: Engine) -> None:
    order: list[str] = []

    def second() -> None:
        with writing(engine) as connection:
            lock_loading(connection)
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with writing(engine) as connection:
            lock_loading(connection)
            waiting = pool.submit(second)
            add_line(connection)
            order.append("first")
        waiting.result()
    assert order == ["first", "second"]


def test_answers_survive_a_power_cut(sqlite_url: str) -> None:
    with opened(sqlite_url) as engine, reading(engine) as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


def test_a_locked_database_is_an_error_of_ours(tmp_path: Path, sqlite_url: str) -> None:
    with opened(sqlite_url) as engine:
        impatient = sa.create_engine(engine.url, connect_args={"timeout": 0, "isolation_level": None})
        with writing(engine) as connection:
            add_line(connection)
            with pytest.raises(DatabaseError, match="database is locked"), writing(impatient) as other:
                add_line(other)
        impatient.dispose()


def test_the_clock_is_aware_and_in_utc(engine: Engine) -> None:
    with reading(engine) as connection:
        assert clock(connection).tzinfo is UTC


def test_the_clock_moves_within_a_transaction(postgres_url: str) -> None:
    with opened(postgres_url) as engine, reading(engine) as connection:
        assert clock(connection) < clock(connection)


def test_the_name_of_the_program_is_shown_to_the_server(postgres_url: str) -> None:
    with opened(postgres_url) as engine, reading(engine) as connection:
        assert connection.execute(sa.text("SHOW application_name")).scalar() == "batchrun"


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    with opened(database_url) as engine:
        assert read_revision(engine) == SCHEMA
