"""Reading a job file: what comes out of a good one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from batchrun.jobfile.reader import read_job_file
from batchrun.jobfile.spec import JobFile

JOB = """\
version: 1
jobs:
  - name: captions
    provider: model-studio/singapore
    model: qwen3-vl-plus
    inputs: {images: photos}
    prompt: Describe.
"""


def read(tmp_path: Path, content: str | bytes) -> JobFile:
    path = tmp_path / "jobs.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_job_file(path)


def test_a_minimal_file(tmp_path: Path) -> None:
    found = read(tmp_path, JOB)
    assert (found.version, found.path, [job.name for job in found.jobs]) == (1, tmp_path / "jobs.yaml", ["captions"])


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + JOB.encode(),
        JOB.replace("\n", "\r\n").encode(),
        JOB.replace("\n", "\r").encode(),
        ("# a comment\n---\n" + JOB + "...\n").encode(),
        ("%YAML 1.2\n---\n" + JOB).encode(),
    ],
    ids=["mark", "crlf", "cr", "document start", "directive"],
)
def test_forms_that_are_the_same_file(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content).jobs == read(tmp_path, JOB).jobs


def test_defaults_go_into_each_job(tmp_path: Path) -> None:
    text = JOB.replace("jobs:\n", "defaults: {tags: [spring], priority: 3}\njobs:\n") + "    priority: 5\n"
    job = read(tmp_path, text).jobs[0]
    assert (job.tags, job.priority) == (("spring",), 5)


def test_mappings_of_defaults_merge_key_by_key(tmp_path: Path) -> None:
    text = JOB.replace("jobs:\n", "defaults: {limits: {concurrency: 8, tokens_per_minute: 9}}\njobs:\n")
    limits = read(tmp_path, text + "    limits: {concurrency: 64}\n").jobs[0].limits
    assert (limits.concurrency, limits.tokens_per_minute) == (64, 9)


def test_inputs_of_defaults_are_replaced_as_a_whole(tmp_path: Path) -> None:
    text = JOB.replace("jobs:\n", "defaults: {inputs: {rows: a.csv}}\njobs:\n")
    assert read(tmp_path, text).jobs[0].inputs.source == "photos"


def test_null_takes_a_default_back(tmp_path: Path) -> None:
    text = JOB.replace("jobs:\n", "defaults: {params: {seed: 5, top_p: 0.5}, retry: {max_elapsed: 1h}}\njobs:\n")
    job = read(tmp_path, text + "    params: {seed: null}\n    retry: null\n").jobs[0]
    assert (job.params, job.retry.max_elapsed) == ({"top_p": 0.5}, timedelta(hours=24))


def test_null_inside_an_extra_parameter_is_kept(tmp_path: Path) -> None:
    text = JOB + "    params: {extra: {schema: {default: null}}}\n"
    assert read(tmp_path, text).jobs[0].params == {"schema": {"default": None}}


def test_words_of_older_yaml_are_text(tmp_path: Path) -> None:
    text = JOB.replace("{images: photos}", "{items: [{id: no, a: 12:30, b: 2020-01-01, c: 1_000, d: '012', e: on}]}")
    items = read(tmp_path, text).jobs[0].inputs.items
    assert items == ({"id": "no", "a": "12:30", "b": "2020-01-01", "c": "1_000", "d": "012", "e": "on"},)


def test_a_quoted_number_is_a_name(tmp_path: Path) -> None:
    assert read(tmp_path, JOB.replace("captions", '"012"')).jobs[0].name == "012"


def test_unicode_line_separators_stay_in_a_prompt(tmp_path: Path) -> None:
    text = JOB.replace("Describe.", "|\n      one\u2028two\x85three\u2029four\n      five")
    assert read(tmp_path, text).jobs[0].prompt == "one\u2028two\x85three\u2029four\nfive\n"


def test_an_example_with_everything(tmp_path: Path) -> None:
    text = """\
# yaml-language-server: $schema=./schema/batchrun-jobs.schema.json
version: 1
defaults:
  provider: model-studio/singapore
jobs:
  - name: caption-catalogue
    model: qwen3-vl-plus
    inputs: {images: photos/**/*.jpg}
    system: You write captions.
    prompt: "Describe {{ filename }} in one sentence."
    params: {max_tokens: 200, temperature: 0.2}
    thinking: {enabled: false}
    stream: false
    limits: {concurrency: 64, requests_per_minute: 600, tokens_per_minute: 1000000, tokens_per_day: 5000000}
    retry: {attempts: 4, max_elapsed: 24h}
    timeouts: {first_token: 2m, silence: 90s, total: 1h}
    budget: {max_cost: 5.00 USD}
    output: {sidecar: "{{ stem }}.txt", folder: captions}
    tags: [spring]
    priority: 10
"""
    job = read(tmp_path, text).jobs[0]
    assert (job.params, job.timeouts.silence) == ({"max_tokens": 200, "temperature": 0.2}, timedelta(seconds=90))


def test_a_link_to_a_job_file_is_followed(tmp_path: Path) -> None:
    read(tmp_path, JOB)
    (tmp_path / "link.yaml").symlink_to("jobs.yaml")
    assert read_job_file(tmp_path / "link.yaml").jobs[0].name == "captions"
