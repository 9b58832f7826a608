"""Requests as jobs send them: each job of `tests/requests` goes out as the file says, in both wire forms."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from batchrun.catalogue import Catalogue, load_catalogue
from tests.unit.sending import plan_of, sent_by

REQUESTS = Path(__file__).parent.parent / "requests"
SAMPLES = sorted(path for dialect in ("compat", "native") for path in (REQUESTS / dialect).glob("*.json"))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_job_is_sent_as_the_sample_says(catalogue: Catalogue, path: Path) -> None:
    sample = json.loads(path.read_text())
    plan = plan_of(catalogue, sample["job"], REQUESTS / "files")
    sent, common = sample["sent"], {"content-type", "accept-encoding", "user-agent"}
    assert json.loads(asyncio.run(sent_by(plan, sample.get("images", []), sample.get("media", [])))) == sent["body"]
    assert plan.url == sent["url"]
    assert {name: text for name, text in plan.headers.items() if name not in common} == sent["headers"]
