"""Databases for the tests, real ones, and an environment without anybody's keys.

`database_url` runs a test twice, on SQLite and on PostgreSQL, on a migrated and empty database of its own;
`sqlite_url` and `postgres_url` are each of the two alone. The same names with `blank_` have no tables yet. A test
that is marked `on_every_database` runs a third time, on an older major version of PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.both_databases import KINDS, OLDER_KIND, BothDatabases, mark
from tests.servers import MissingServerError, Postgres, required, running_older_postgres, running_postgres

FOREIGN = (
    "ACEDATACLOUD_", "ALL_PROXY", "BATCHRUN_", "CELERY_", "COLUMNS", "DASHSCOPE_", "DATABASE_URL", "FORCE_COLOR",
    "HTTPS_PROXY", "HTTP_PROXY", "LINES", "MOONSHOT_", "NO_COLOR", "OPENAI_", "REDIS_URL",
)  # fmt: skip
"""Variables that begin so would reach batchrun or a library below it, and change what a test sees."""
OURS = ("BATCHRUN_REQUIRE_SERVERS", "BATCHRUN_TEST_")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the workers of xdist send their results to the process that counts
        config.pluginmanager.register(BothDatabases())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark(item)


@pytest.fixture(scope="session", autouse=True)
def own_environment() -> Iterator[None]:
    """Nothing of the machine's environment reaches a test; least of all a key that spends money."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith(FOREIGN) and not name.startswith(OURS):
                patch.delenv(name)
        yield


def migrate(url: str) -> None:
    from batchrun.database import upgrade  # here, as the unit tests can do without it

    upgrade(url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server, started for the first test that needs it."""
    yield from found(running_postgres())


@pytest.fixture(scope="session")
def older_postgres() -> Iterator[Postgres]:
    """The same of an older major version."""
    yield from found(running_older_postgres())


def found(server_of: AbstractContextManager[Postgres]) -> Iterator[Postgres]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(server_of)
        except MissingServerError as missing:
            if required():
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> Iterator[str]:
    """The name of a migrated database, to be copied."""
    url = postgres.create()
    migrate(url)
    yield make_url(url).database or ""
    postgres.drop(url)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def blank_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'batchrun.db'}"


@pytest.fixture
def sqlite_url(blank_sqlite_url: str, migrated_sqlite: Path) -> str:
    shutil.copyfile(migrated_sqlite, blank_sqlite_url.removeprefix("sqlite:///"))
    return blank_sqlite_url


@pytest.fixture
def blank_postgres_url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    yield url
    postgres.drop(url)


@pytest.fixture
def postgres_url(postgres: Postgres, migrated_postgres: str) -> Iterator[str]:
    url = postgres.create(template=migrated_postgres)
    yield url
    postgres.drop(url)


@pytest.fixture
def blank_older_postgres_url(older_postgres: Postgres) -> Iterator[str]:
    url = older_postgres.create()
    yield url
    older_postgres.drop(url)


@pytest.fixture
def older_postgres_url(blank_older_postgres_url: str) -> str:
    migrate(blank_older_postgres_url)
    return blank_older_postgres_url


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    """`sqlite` or `postgresql`; a test that asks for it runs on both."""
    return str(request.param)


FIXTURES = {"sqlite": "sqlite_url", "postgresql": "postgres_url", OLDER_KIND: "older_postgres_url"}


@pytest.fixture
def database_url(request: pytest.FixtureRequest, database_kind: str) -> str:
    return str(request.getfixturevalue(FIXTURES[database_kind]))


@pytest.fixture
def blank_database_url(request: pytest.FixtureRequest, database_kind: str) -> str:
    return str(request.getfixturevalue(f"blank_{FIXTURES[database_kind]}"))
