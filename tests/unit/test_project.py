"""What stands beside the package: the pinned dependencies, the demonstration, the example."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import ExifTags, Image

from batchrun.jobfile.reader import read_job_file
from tests.both_databases import shared_name
from tests.servers import required

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "batchrun" / "demo" / "pictures"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> Iterator[Requirement]:
    """The pinned packages of a file, without hashes and comments."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            yield Requirement(line.removesuffix("\\"))


def pictures() -> list[Path]:
    return sorted(path for path in PICTURES.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["requirements.lock", "constraints.txt"])
def test_each_direct_dependency_is_pinned_to_a_version_that_it_allows(name: str) -> None:
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins(name)}
    direct = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
    assert [wanted for wanted in direct if pinned.get(canonicalize_name(wanted.name), "") not in wanted.specifier] == []


def test_both_files_pin_the_same() -> None:
    assert sorted(map(str, pins("constraints.txt"))) == sorted(map(str, pins("requirements.lock")))


def test_every_pin_is_exact() -> None:
    assert [str(pin) for pin in pins("constraints.txt") if not re.fullmatch(r"==[^*,]+", str(pin.specifier))] == []


def test_every_locked_package_has_a_hash() -> None:
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert [entry for entry in entries[1:] if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", ["requirements.lock", "constraints.txt"])
def test_no_address_of_an_index_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert re.findall(r"\w+://\S*|--(?:index|extra-index|find-links|trusted-host)\S*| @ \S+", text) == []


def test_the_licence_is_the_one_that_the_package_names() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_demonstration_has_a_dozen_pictures_in_at_most_four_megabytes() -> None:
    assert len(pictures()) == 12
    assert sum(path.stat().st_size for path in pictures()) <= 4_000_000


def test_each_picture_is_what_its_name_says() -> None:
    suffixes = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
    for path in pictures():
        with Image.open(path) as picture:
            picture.load()
            assert suffixes[picture.format or ""] == path.suffix


def test_one_picture_is_stored_lying_on_its_side() -> None:
    with Image.open(PICTURES / "receipt.jpg") as picture:
        assert picture.getexif()[ExifTags.Base.Orientation] == 6
        assert picture.width > picture.height


def test_captions_of_the_demonstration_do_not_overwrite_each_other() -> None:
    assert len({path.stem for path in pictures()}) == len(pictures())


@pytest.mark.parametrize("name", ["batchrun/demo/jobs.yaml", "jobs.example.yaml"])
def test_the_job_file_captions_the_pictures_with_the_simulator(name: str) -> None:
    path = ROOT / name
    job = read_job_file(path).jobs[0]
    assert job.provider == "simulator/model-studio-singapore"
    assert (path.parent / job.inputs.source).resolve() == PICTURES


def test_the_example_has_a_job_of_text_alone_that_thinks() -> None:
    *_, job = read_job_file(ROOT / "jobs.example.yaml").jobs
    assert job.inputs.kind == "items"
    assert job.thinking is not None
    assert job.thinking.enabled


@pytest.mark.parametrize(
    ("environment", "answer"),
    [
        ({}, False),
        ({"CI": "false"}, False),
        ({"CI": ""}, False),
        ({"CI": "true"}, True),
        ({"BATCHRUN_REQUIRE_SERVERS": "1"}, True),
    ],
)
def test_a_missing_server_fails_where_servers_are_required(environment: dict[str, str], answer: bool) -> None:
    assert required(environment) is answer


@pytest.mark.parametrize(
    ("kind", "nodeid"), [("sqlite", "t.py::test_sqlite[sqlite-1]"), ("postgresql", "t.py::test_sqlite[postgresql-1]")]
)
def test_a_test_has_one_name_on_both_databases(kind: str, nodeid: str) -> None:
    assert shared_name(nodeid, kind) == "t.py::test_sqlite[*-1]"
