"""Mistakes of a first day, on the real command line: each ends within seconds, and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun import simulator
from batchrun.simulator import Options, Running

JOB = """
version: 1
jobs:
  - name: one
    provider: model-studio/singapore
    model: qwen3-vl-plus
    inputs: {items: [{id: a}]}
    prompt: "Say it."
    params: {max_tokens: 200}
    thinking: {enabled: false}
"""
KEY = "sk-sim-singapore"


@pytest.fixture(scope="module")
def vendor() -> Iterator[Running]:
    with simulator.start(Options(ttft=0, tokens_per_second=0)) as running:
        yield running


def run(folder: Path, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`batchrun run` of one item at the vendor who is said to live at `address`."""
    (folder / "jobs.yaml").write_text(JOB, encoding="utf-8")
    catalogue = f"endpoints:\n  model-studio/singapore:\n    base_url: {address}\n"
    (folder / "catalogue.yaml").write_text(catalogue, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "batchrun", "run", "jobs.yaml", "--catalogue", "catalogue.yaml"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("variable", ["DASHSCOPE_API_KEY", "DASHSCOPE_API_KEY_SINGAPORE"])
@pytest.mark.parametrize("key", ["sk-mistyped-0123", "sk-sim-beijing"])
def test_a_wrong_key_or_one_of_another_region_is_named_by_its_variable(
    variable: str, key: str, vendor: Running, tmp_path: Path
) -> None:
    ended = run(tmp_path, vendor.base_url(), **{variable: key})
    assert ended.returncode == 3
    assert f"stopped (refused): the key in {variable} was refused: HTTP 401" in ended.stdout
    assert "use the key of this region" in ended.stdout
    assert key not in ended.stdout + ended.stderr


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "https://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_ends_the_run_within_seconds(address: str, tmp_path: Path) -> None:
    began = time.monotonic()
    ended = run(tmp_path, address, DASHSCOPE_API_KEY=KEY)
    assert time.monotonic() - began < 30
    assert ended.returncode == 4
    assert "stopped (unreachable): the provider was never reached: can't reach the server" in ended.stdout


def test_whoever_mended_the_address_waits_for_nothing(vendor: Running, tmp_path: Path) -> None:
    assert run(tmp_path, "http://127.0.0.1:9/v1", DASHSCOPE_API_KEY=KEY).returncode == 4
    began = time.monotonic()
    ended = run(tmp_path, vendor.base_url(), DASHSCOPE_API_KEY=KEY)
    assert (ended.returncode, "one: 1 done of 1" in ended.stdout) == (0, True)
    assert time.monotonic() - began < 8
