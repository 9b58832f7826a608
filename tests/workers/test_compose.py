"""docker-compose.yml without Docker: its schema, its variables, and every command in it, on servers of the tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ruamel.yaml import YAML
from sqlalchemy import make_url

from batchrun.catalogue import load_catalogue
from batchrun.database import connect, reading
from batchrun.tables import items
from tests.workers.fleet import JOB, Broker, free_port, waited_for

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE)
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "batchrun"}
_VARIABLE = re.compile(r"\$\{(\w+)(?::(-|\?)([^}]*))?\}")


def filled(text: str, values: Mapping[str, str]) -> str:
    """As Compose fills in variables; `$$` is one dollar sign."""

    def value(match: re.Match[str]) -> str:
        name, how, other = match.groups()
        if values.get(name):
            return values[name]
        if how == "?":
            raise KeyError(name)
        return other or ""

    return _VARIABLE.sub(value, text).replace("$$", "$")


def test_it_fits_the_schema_of_compose_files() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_it_holds_no_password_and_starts_without_none() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert re.findall(r"(?i)(?:password|api_key|token\w*): (?!\$\{)\S+", text) == []
    with pytest.raises(KeyError, match="POSTGRES_PASSWORD"):
        filled(str(OURS["worker"]["environment"]["DATABASE_URL"]), {})


def test_every_variable_of_a_worker_is_one_that_batchrun_reads() -> None:
    keys = {name for endpoint in load_catalogue().endpoints.values() for name in endpoint.key_env}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "batchrun").rglob("*.py"))
    unknown = [name for name in OURS["worker"]["environment"] if name not in keys and f'"{name}"' not in source]
    assert unknown == []


def environment_of(service: str, **values: str) -> dict[str, str]:
    written = {name: filled(str(value), values) for name, value in OURS[service]["environment"].items()}
    return {**os.environ, **written, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOSTNAME": "box"}


@contextmanager
def running(words: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "batchrun", *words], cwd=folder, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def healthy(service: str, environment: Mapping[str, str], port: str) -> bool:
    kind, command = OURS[service]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    tried = subprocess.run(
        ["sh", "-c", filled(command, {}).replace(":8000", f":{port}")],
        env=environment,
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0


@pytest.mark.timeout(180)
def test_its_commands_do_a_job(tmp_path: Path, blank_postgres_url: str, broker: Broker) -> None:
    port = free_port()
    made = make_url(blank_postgres_url)
    environment = environment_of("worker", POSTGRES_PASSWORD="x", BATCHRUN_SIMULATOR_URL=f"http://127.0.0.1:{port}")
    assert make_url(environment["DATABASE_URL"]).host == "db"
    environment |= {"DATABASE_URL": made.render_as_string(hide_password=False), "CELERY_BROKER_URL": broker.url}
    (tmp_path / "jobs.yaml").write_text(JOB.format(name="lines", limits="concurrency: 4"), encoding="utf-8")
    rows = [json.dumps({"id": str(number), "text": f"thing {number}"}) for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")

    subprocess.run(
        [sys.executable, "-m", "batchrun", *OURS["migrate"]["command"]], cwd=tmp_path, env=environment, check=True
    )
    simulate = [
        word.replace("8000", str(port)).replace("0.0.0.0", "127.0.0.1") for word in OURS["simulator"]["command"]
    ]
    worker = [*OURS["worker"]["command"], "--hostname", "celery@box"]
    with running(simulate, tmp_path, environment), running(worker, tmp_path, environment):
        waited_for(lambda: healthy("simulator", environment, str(port)))
        waited_for(lambda: healthy("worker", environment, str(port)))
        subprocess.run(
            [sys.executable, "-m", "batchrun", "submit", "jobs.yaml"], cwd=tmp_path, env=environment, check=True
        )
        engine = connect(environment["DATABASE_URL"])

        def done() -> bool:
            with reading(engine) as connection:
                count = sa.select(sa.func.count()).where(items.c.state == "done")
                return bool(connection.execute(count).scalar_one() == 8)

        waited_for(done)
        engine.dispose()
