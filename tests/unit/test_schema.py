"""The schema of the job file says about its shape what the reader says, and the committed copies are up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from batchrun.errors import SpecError
from batchrun.jobfile.reader import read_job_file
from batchrun.jobfile.reference import reference
from batchrun.jobfile.schema import job_schema

ROOT = Path(__file__).parents[2]
SCHEMA = job_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

JOB = "version: 1\njobs:\n  - name: a\n    provider: p\n    model: m\n    inputs: {images: x}\n    prompt: y\n"
WITH_DEFAULTS = "version: 1\ndefaults: {%s}\njobs:\n  - name: a\n    inputs: {images: x}\n    %s\n"

GOOD = [
    JOB,
    JOB + "    params: {max_tokens: 5, stop: END, extra: {min_p: 0.1}}\n",
    JOB + "    params: {stop: [a, b], temperature: 1}\n",
    JOB + "    thinking: {enabled: true, budget: 5}\n    budget: {max_cost: 5USD}\n",
    JOB + "    limits: null\n    system: null\n    retry: {attempts: null, max_elapsed: 1d12h}\n",
    JOB + "    tags: [a, b c]\n    priority: -5\n    stream: false\n    media: {}\n",
    JOB + "    output: {sidecar: '{{ stem }}.txt', folder: out}\n    timeouts: {silence: 90s}\n",
    JOB.replace("{images: x}", "{items: [{id: 1, more: {deep: [1, null]}}]}"),
    JOB.replace("{images: x}", "{rows: x.csv, images: null}").replace("prompt: y", "prompt: '{{ word }}'"),
    WITH_DEFAULTS % ("provider: p, model: m, prompt: y", "tags: []"),
    WITH_DEFAULTS % ("provider: p, model: m, thinking: {enabled: true}", "prompt: y\n    thinking: {budget: 5}"),
    WITH_DEFAULTS % ("provider: p, model: m, budget: {max_cost: 1 USD}", "prompt: y\n    budget: {}"),
]
BAD = [
    "version: 1\njobs: []\n",
    "jobs: [{}]\n",
    "[]\n",
    JOB.replace("version: 1", "version: 2"),
    JOB.replace("version: 1", "version: '1'"),
    JOB.replace("    provider: p\n", ""),
    JOB.replace("    prompt: y\n", ""),
    JOB.replace("name: a", "name: 'a b'"),
    JOB.replace("provider: p", "provider: https://example.com"),
    JOB.replace("prompt: y", "prompt: ''"),
    JOB.replace("prompt: y", "prompt: 5"),
    JOB.replace("{images: x}", "{}"),
    JOB.replace("{images: x}", "{images: x, rows: y.csv}"),
    JOB.replace("{images: x}", "{images: null}"),
    JOB.replace("{images: x}", "{parquet: x}"),
    JOB.replace("{images: x}", "{items: []}"),
    JOB.replace("{images: x}", "photos"),
    JOB + "    depends_on: others\n",
    JOB + "    budgett: {max_cost: 5 USD}\n",
    JOB + "    budget: {max_cost: 5}\n",
    JOB + "    budget: {max_cost: 0.00 USD}\n",
    JOB + "    budget: {}\n",
    JOB + "    thinking: {budget: 5}\n",
    JOB + "    thinking: true\n",
    JOB + "    output: {folder: x}\n",
    JOB + "    params: {max_tokens: 0}\n",
    JOB + "    params: {max_tokens: '200'}\n",
    JOB + "    params: {temperature: 3}\n",
    JOB + "    params: {min_p: 0.1}\n",
    JOB + "    params: {stop: []}\n",
    JOB + "    retry: {max_elapsed: 24}\n",
    JOB + "    retry: {max_elapsed: ''}\n",
    JOB + "    timeouts: {total: 1 h}\n",
    JOB + "    tags: ['a,b']\n",
    JOB + "    priority: high\n",
    WITH_DEFAULTS % ("name: x, provider: p, model: m", "prompt: y"),
    WITH_DEFAULTS % ("provider: p", "prompt: y"),
]


def is_read(text: str, folder: Path) -> bool:
    path = folder / "jobs.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        read_job_file(path)
    except SpecError:
        return False
    return True


def fits(text: str) -> bool:
    return bool(VALIDATOR.is_valid(YAML(typ="safe", pure=True).load(text)))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", GOOD)
def test_a_good_file_is_refused_by_neither(text: str, tmp_path: Path) -> None:
    assert (is_read(text, tmp_path), fits(text)) == (True, True)


@pytest.mark.parametrize("text", BAD)
def test_a_file_of_another_shape_is_refused_by_both(text: str, tmp_path: Path) -> None:
    assert (is_read(text, tmp_path), fits(text)) == (False, False)


@pytest.mark.parametrize("name", ["jobs.example.yaml", "batchrun/demo/jobs.yaml"])
def test_the_files_that_come_with_batchrun_fit(name: str) -> None:
    assert fits((ROOT / name).read_text(encoding="utf-8"))


def test_the_committed_schema_is_the_one_that_the_command_prints() -> None:
    committed = json.loads((ROOT / "schema" / "batchrun-jobs.schema.json").read_text(encoding="utf-8"))
    assert committed == SCHEMA, "run: batchrun schema --out schema/batchrun-jobs.schema.json"


def test_the_committed_reference_is_made_from_the_schema() -> None:
    committed = (ROOT / "docs" / "jobfile.md").read_text(encoding="utf-8")
    assert committed == reference(SCHEMA), "run: batchrun schema --format markdown --out docs/jobfile.md"


def test_the_example_names_the_schema_for_editors() -> None:
    first = (ROOT / "jobs.example.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./schema/batchrun-jobs.schema.json"


def test_every_key_is_explained() -> None:
    definitions = SCHEMA["$defs"]
    keys = {name: section["properties"] for name, section in definitions.items() if "properties" in section}
    bare = [(name, key) for name, made in keys.items() for key, value in made.items() if not value.get("description")]
    assert bare == []


def test_defaults_take_every_key_but_the_name() -> None:
    definitions = SCHEMA["$defs"]
    assert {*definitions["Defaults"]["properties"], "name"} == set(definitions["JobSpec"]["properties"])


def test_defaults_are_written_as_a_person_writes_them() -> None:
    timeouts = SCHEMA["$defs"]["TimeoutsSpec"]["properties"]
    assert {key: value["default"] for key, value in timeouts.items()} == {
        "first_token": "2m",
        "silence": "2m",
        "total": "1h",
    }
