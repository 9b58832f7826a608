"""Providers besides Model Studio as a person tries them: one job file, one run against the bundled simulator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

BATCHRUN = [sys.executable, "-m", "batchrun"]
JOBS = """
version: 1
defaults:
  model: kimi-k2.5
  inputs: {items: [{id: a, word: one}, {id: b, word: two}]}
  prompt: "Say {{ word }}."
  params: {max_tokens: 200}
jobs:
  - {name: ace, provider: simulator/acedata}
  - {name: moon, provider: simulator/moonshot, budget: {max_cost: 5 USD}}
  - {name: direct, provider: simulator/moonshot, thinking: {enabled: false}}
"""


def batchrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*BATCHRUN, *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("providers")
    (folder / "jobs.yaml").write_text(JOBS, encoding="utf-8")
    return folder, batchrun(folder, "run", "jobs.yaml")


Ran = tuple[Path, subprocess.CompletedProcess[str]]


def costs(folder: Path) -> dict[str, dict[str, Any]]:
    lines: Sequence[dict[str, Any]] = json.loads(batchrun(folder, "report", "cost", "--json").stdout)["lines"]
    return {line["key"]: line for line in lines}


def test_a_run_starts_the_simulator_of_each_provider(ran: Ran) -> None:
    _, done = ran
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "done of" in line] == [
        "ace (simulated): 2 done of 2",
        "moon (simulated): 2 done of 2",
        "direct (simulated): 2 done of 2",
    ]


def test_a_cost_without_a_price_is_called_unknown(ran: Ran) -> None:
    assert "cost unknown: no price for 2 calls (simulated money)" in ran[1].stdout


def test_the_report_keeps_known_and_unknown_apart(ran: Ran) -> None:
    found = costs(ran[0])
    assert (found["ace"]["cost_high"], found["ace"]["unknown_cost"]) == (None, 2)
    assert (found["moon"]["unknown_cost"], found["moon"]["currency"], found["moon"]["exact"]) == (0, "USD", True)


def test_what_the_vendor_fixes_is_refused_before_any_call(ran: Ran) -> None:
    folder, _ = ran
    (folder / "warm.yaml").write_text(JOBS.replace("max_tokens: 200", "temperature: 0.5"), encoding="utf-8")
    refused = batchrun(folder, "load", "warm.yaml")
    assert (refused.returncode, "kimi-k2.5 doesn't take the parameter `temperature`" in refused.stderr) == (2, True)
