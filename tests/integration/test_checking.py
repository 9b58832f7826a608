"""What `doctor` finds outside of the rows: keys, hosts, proxies, disk, the file, and databases that can't be opened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.examining import examine
from batchrun.examining.checking import (
    Finding,
    Level,
    check_hosts,
    check_key,
    check_memory,
    check_proxies,
    check_space,
    check_start_up,
)
from batchrun.settings import Settings

CATALOGUE = load_catalogue()
ENDPOINT = CATALOGUE.endpoints["model-studio/singapore"]
SECRET = "sk-canary-0a1b2c3d4e"


def found(url: str, *, catalogue: Path | None = None, **environment: str) -> Mapping[str, list[Finding]]:
    by_check: dict[str, list[Finding]] = {}
    settings = Settings(database_url=url, catalogue=catalogue, environment=environment)
    made = examine(settings, version="0", mend=False, offline=True)
    for finding in made.findings:
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_host_that_listens_is_reached(listening: socket.socket) -> None:
    (finding,) = check_hosts([replace(ENDPOINT, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1")])
    assert (finding.level, "plain http" in finding.found) == (Level.OK, True)


def test_nothing_is_said_to_a_host(listening: socket.socket) -> None:
    check_hosts([replace(ENDPOINT, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1")])
    accepted, _ = listening.accept()
    with accepted:
        assert accepted.recv(100) == b""


def test_a_refused_connection_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (finding,) = check_hosts([replace(ENDPOINT, base_url=f"http://127.0.0.1:{port}/v1")])
    assert (finding.level, "Connection refused" in finding.found) == (Level.BAD, True)


def test_a_host_without_tls_is_told(listening: socket.socket) -> None:
    def answer_plainly() -> None:
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer_plainly)
    thread.start()
    (finding,) = check_hosts([replace(ENDPOINT, base_url=f"https://127.0.0.1:{listening.getsockname()[1]}/v1")])
    thread.join()
    assert (finding.level, "TLS fails" in finding.found) == (Level.BAD, True)


def test_endpoints_of_one_host_are_asked_once(listening: socket.socket) -> None:
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    both = [replace(ENDPOINT, base_url=f"{url}/a"), replace(ENDPOINT, name="other/here", base_url=f"{url}/b")]
    (finding,) = check_hosts(both)
    assert "model-studio/singapore, other/here" in finding.found


@pytest.mark.parametrize(
    ("keys", "level"),
    [
        ({"DASHSCOPE_API_KEY": SECRET}, Level.OK),
        ({"DASHSCOPE_API_KEY": f'"{SECRET}"'}, Level.BAD),
        ({}, Level.BAD),
    ],
)
def test_a_key_is_told_by_its_variable_alone(keys: dict[str, str], level: Level) -> None:
    known = Settings(database_url="", catalogue=None, environment=keys)
    finding = check_key(ENDPOINT, known, needed=True)
    assert (finding.level, "DASHSCOPE_API_KEY" in finding.found) == (level, True)
    assert not any(SECRET[start : start + 6] in repr(finding) for start in range(3, len(SECRET) - 5))


def test_proxies_are_named_without_their_passwords() -> None:
    (finding,) = check_proxies({"https_proxy": "http://user:canary@proxy:1", "HTTP_PROXY": "", "PATH": "x"})
    assert finding.found == "https_proxy is set, and not used"


def test_files_that_run_code_at_every_start_are_listed(tmp_path: Path) -> None:
    (tmp_path / "harmless.pth").write_text("/some/folder\n")
    (tmp_path / "stealer.pth").write_text("import stealer\n")
    (finding,) = check_start_up([str(tmp_path)])
    assert finding.found == "each start of Python runs stealer.pth"


def test_processes_that_ran_out_of_memory_are_told(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 3\noom_kill 2\n")
    (finding,) = check_memory(events)
    assert finding.found == "the system has killed 2 processes here for want of memory"


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert check_space("disk", tmp_path / "not" / "yet").level is not Level.BAD


def test_a_database_that_does_not_exist_is_no_fault_and_is_not_made(tmp_path: Path) -> None:
    (finding,) = found(f"sqlite:///{tmp_path}/x.db")["database"]
    assert finding.level is Level.OK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mysql://h/x", "postgresql://u:canary@127.0.0.1:1/x", "postgresql://u:can@ary@h/x", "nonsense"]
)
def test_an_address_that_can_not_be_used_is_bad_and_shows_no_password(url: str) -> None:
    (finding,) = found(url)["database"]
    assert (finding.level, bool(finding.remedy)) == (Level.BAD, True)
    assert "canary" not in repr(finding)


def test_tables_of_an_older_version_are_told_with_the_command(blank_database_url: str) -> None:
    if blank_database_url.startswith("sqlite"):
        Path(blank_database_url.removeprefix("sqlite:///")).touch()
    (finding,) = found(blank_database_url)["database"]
    assert (finding.level, finding.remedy) == (Level.BAD, "run: batchrun db upgrade")


def test_a_file_that_others_may_read_is_told_with_the_command(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    path.chmod(0o644)
    assert [finding.remedy for finding in found(sqlite_url)["file"]] == [f"chmod 600 {path}"]


def test_answers_that_were_kept_in_a_file_are_told(sqlite_url: str) -> None:
    folder = Path(sqlite_url.removeprefix("sqlite:///")).parent
    (folder / "unstored-ab12.jsonl").touch()
    (finding,) = found(sqlite_url)["answers"]
    assert (finding.level, "unstored-ab12.jsonl" in finding.found) == (Level.WARN, True)


def test_a_catalogue_that_can_not_be_read_is_bad_and_the_rest_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    made = found(sqlite_url, catalogue=tmp_path / "nosuch.yaml")
    assert [finding.level for finding in made["catalogue"]] == [Level.BAD]
    assert made["rows"][0].level is Level.OK
