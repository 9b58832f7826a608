"""The schema that the migrations make is the one that the code expects, on both databases, and can be taken back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Inspector

from batchrun.database import connect, make_engine, migrations_folder, parse_url, read_revision, reading, upgrade
from batchrun.errors import DatabaseError
from batchrun.tables import EPOCH, SCHEMA, attempts, metadata, usage
from tests.both_databases import on_every_database
from tests.integration.rows import add_job, opened, states_of
from tests.servers import OLDER

ROOT = Path(__file__).parents[2]


@pytest.fixture
def blank(blank_database_url: str) -> Iterator[Engine]:
    """A database without tables."""
    engine = make_engine(parse_url(blank_database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def migrated(database_url: str) -> Iterator[Engine]:
    with opened(database_url) as engine:
        yield engine


def tables_of(engine: Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def address(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_the_code_expects_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_every_revision_has_a_file_of_its_number() -> None:
    names = sorted(path.name for path in (ROOT / "migrations" / "versions").glob("*.py"))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.py", name) for name in names)
    assert names[-1].startswith(SCHEMA)


def test_an_upgrade_makes_all_tables(migrated: Engine) -> None:
    assert tables_of(migrated) == {*metadata.tables, "alembic_version"}


def test_the_older_server_is_of_the_version_that_the_operations_page_names(older_postgres_url: str) -> None:
    with opened(older_postgres_url) as engine, reading(engine) as connection:
        version = connection.execute(sa.text("SHOW server_version_num")).scalar_one()
    assert int(version) // 10_000 == OLDER
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"PostgreSQL {OLDER} and 18" in page


@on_every_database
def test_the_migrations_and_the_tables_do_not_differ(migrated: Engine) -> None:
    with reading(migrated) as connection:
        options = {"compare_type": True, "compare_server_default": True, "render_as_batch": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def checks(inspector: Inspector) -> dict[str, list[tuple[str | None, list[str]]]]:
    """The constraints that a comparison leaves out: name, and the words that they allow."""
    return {
        table: sorted(
            (check["name"], sorted(re.findall(r"'(\w+)'", check["sqltext"])))
            for check in inspector.get_check_constraints(table)
        )
        for table in sorted(metadata.tables)
    }


def keys(inspector: Inspector) -> dict[str, list[object]]:
    """Names and columns of primary, foreign and unique keys, and of indexes with their conditions."""
    return {
        table: [
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((key["name"], key["constrained_columns"]) for key in inspector.get_foreign_keys(table)),
            sorted((key["name"], key["column_names"]) for key in inspector.get_unique_constraints(table)),
            sorted(
                (index["name"] or "", index["column_names"], [str(text) for text in index["dialect_options"].values()])
                for index in inspector.get_indexes(table)
            ),
        ]
        for table in sorted(metadata.tables)
    }


@on_every_database
def test_constraints_have_the_names_that_later_migrations_will_look_for(migrated: Engine, blank: Engine) -> None:
    metadata.create_all(blank)
    made, expected = sa.inspect(migrated), sa.inspect(blank)
    assert checks(made) == checks(expected)
    assert keys(made) == keys(expected)


def test_a_state_that_does_not_exist_can_not_be_stored(migrated: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), migrated.begin() as connection:  # noqa: PT012 - the first line is set-up
        add_job(connection, size=1)
        connection.execute(sa.text("UPDATE items SET state = 'finished'"))


def test_downgrading_takes_everything_back(database_url: str) -> None:
    upgrade(database_url, "base")
    engine = make_engine(parse_url(database_url))
    assert tables_of(engine) == {"alembic_version"}
    engine.dispose()


@on_every_database
def test_up_after_down_makes_the_same_schema(database_url: str) -> None:
    with opened(database_url) as engine:
        before = keys(sa.inspect(engine))
    upgrade(database_url, "base")
    upgrade(database_url)
    with opened(database_url) as engine:
        assert keys(sa.inspect(engine)) == before


def test_an_upgrade_of_a_blank_database_can_be_used_at_once(blank: Engine) -> None:
    upgrade(address(blank))
    with blank.begin() as connection:
        job = add_job(connection, size=2)
    assert states_of(blank, job) == {"pending": 2}


def test_an_upgrade_keeps_what_is_there(migrated: Engine) -> None:
    with migrated.begin() as connection:
        job = add_job(connection, size=2)
    upgrade(address(migrated))
    assert states_of(migrated, job) == {"pending": 2}


@on_every_database
def test_a_database_of_the_first_schema_keeps_its_costs(blank: Engine) -> None:
    upgrade(address(blank), "0001")
    with blank.begin() as connection:
        job = add_job(connection, size=0)
        connection.execute(
            sa.text(
                "INSERT INTO items (id, job_id, custom_id, row_hash, variables, media, state) "
                "VALUES (1, 1, 'a', 'a', '{}', '[]', 'failed')"
            )
        )
        connection.execute(sa.text("INSERT INTO workers (id, host, pid, started_at) VALUES ('w', 'h', 1, 0)"))
        attempt = sa.insert(attempts).values(
            item_id=1, job_id=job, profile_id=1, worker_id="w", fence=1, outcome="lost", claimed_at=EPOCH,
            expected_tokens=0,
        )  # fmt: skip
        connection.execute(attempt)
        connection.execute(
            sa.text(
                "INSERT INTO usage (attempt_id, job_id, provider, region, model, at, simulated, cost_low, cost_high, "
                "currency) VALUES (1, 1, 'p', 'r', 'm', 0, :no, 0, 7, 'USD')"
            ).bindparams(sa.bindparam("no", False))
        )
    upgrade(address(blank))
    with reading(blank) as connection:
        [row] = connection.execute(sa.select(usage))
    assert (row.cost_high, row.settled) == (Decimal("7e-12"), None)


def test_an_old_sqlite_is_upgraded_by_what_may_create_it_and_by_nothing_else(blank_sqlite_url: str) -> None:
    upgrade(blank_sqlite_url, "0001")
    with pytest.raises(DatabaseError, match="schema 0001, this version needs"):
        connect(blank_sqlite_url)
    engine = connect(blank_sqlite_url, create=True)
    assert read_revision(engine) == SCHEMA
    engine.dispose()


def test_an_old_postgresql_is_upgraded_by_its_own_command_alone(blank_postgres_url: str) -> None:
    upgrade(blank_postgres_url, "0001")
    with pytest.raises(DatabaseError, match="schema 0001, this version needs") as caught:
        connect(blank_postgres_url, create=True)
    assert caught.value.remedy == "run: batchrun db upgrade"


@on_every_database
def test_an_upgrade_that_fails_leaves_nothing_behind(blank: Engine) -> None:
    """The last table that the first revision makes is in the way."""
    with blank.begin() as connection:
        connection.execute(sa.text("CREATE TABLE usage (id INTEGER)"))
    with pytest.raises((sa.exc.DBAPIError, DatabaseError)):
        upgrade(address(blank))
    assert tables_of(blank) == {"usage"}
    assert read_revision(blank) is None


def test_a_later_version_may_upgrade_without_asking_on_sqlite_only(blank_postgres_url: str) -> None:
    """Several machines may share a PostgreSQL, and each would have to change first."""
    with pytest.raises(DatabaseError, match="no tables yet"):
        connect(blank_postgres_url, create=True)


def test_an_installed_batchrun_brings_its_migrations(tmp_path: Path) -> None:
    """Laid out as the wheel is, away from the checkout, and in a folder with a percent sign."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path / "100% site"
    for package in wheel["packages"]:
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        shutil.copytree(ROOT / source, site / target, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys; from batchrun import database\n"
        "engine = database.connect(sys.argv[1], create=True)\n"
        "print(database.__file__, database.read_revision(engine), sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'batchrun.db'}"],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (f"{site / 'batchrun' / 'database.py'}|{SCHEMA}", "")
