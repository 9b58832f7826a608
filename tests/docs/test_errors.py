"""docs/errors.md knows every code and kind, and no other; each is shown there, or provoked by a test that names it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from batchrun.catalogue import load_catalogue
from batchrun.errors import BatchrunError
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.loader import check_budget
from batchrun.plan import prepare
from tests.docs.codes import ROOT, codes, kinds

PAGE = ROOT / "docs" / "errors.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```$|^<!--.*?-->$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
HEADINGS = {code for line in re.findall(r"^### (.+)$", PROSE, re.MULTILINE) for code in line.split(", ")}
ROWS = set(re.findall(r"^\| `([\w-]+)` \|", PROSE, re.MULTILINE))
SHOWN = set(re.findall(r"^error\[([\w-]+)\]: .+\n(?:  .+\n)*? +→ .+$", TEXT, re.MULTILINE))

NOT_PROVOKED = {
    "video-extra": "needs an installation without PyAV",
    "database-network": "needs a network file system",
    "media-reference": "only a damaged database holds such a row",
    "no-sidecar-folder": "only a job that wasn't loaded from a file",
    "catalogue-file": "shown on the page, its remedies within its lines",
}

SIMULATED, BEIJING = "simulator/model-studio-singapore", "model-studio/beijing"
JOB = {
    "name": "one",
    "provider": SIMULATED,
    "model": "qwen3-vl-plus",
    "prompt": "x",
    "inputs": {"items": [{"id": "a"}]},
}
PICTURES = {"inputs": {"images": "photos"}}
CATALOGUE = """
endpoints:
  mine:
    dialect: compat
    base_url: https://example.org/v1
    models:
      priced: {prices: [{currency: USD, valid_from: 2026-01-01T00:00:00Z, tiers: [{input: 1, output: 1}]}]}
      unpriced: {}
"""
PROVOKED_HERE: dict[str, tuple[dict[str, object], bool]] = {
    "request-refused": ({"provider": BEIJING, "model": "kimi-k2-thinking", "thinking": {"enabled": False}}, False),
    "model-without-images": ({"provider": BEIJING, "model": "kimi-k2-thinking", **PICTURES}, False),
    "partial-mode": ({"provider": BEIJING, "model": "kimi-k2.5", "on_incomplete": "continue"}, False),
    "batch-chat": ({"provider": BEIJING, "model": "qwen3-vl-flash", "mode": "batch-chat"}, False),
    "budget-currency": ({"budget": {"max_cost": "5.00 EUR"}}, False),
    "budget-large": ({"budget": {"max_cost": "900000000000 USD"}}, False),
    "budget-unpriced": ({"provider": "mine", "model": "unpriced", "budget": {"max_cost": "1 USD"}}, True),
    "budget-unbounded": ({"provider": "mine", "model": "priced", "budget": {"max_cost": "1 USD"}}, True),
}
"""What a job file says that is wrong in this way, and whether it needs the catalogue above."""


@cache
def sources_of_tests() -> str:
    folders = (ROOT / "tests" / name for name in ("unit", "integration", "workers", "acceptance"))
    return "\n".join(path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.rglob("*.py")))


def test_every_code_has_its_place_on_the_page() -> None:
    assert sorted(codes() - HEADINGS - ROWS) == [], "add a heading with a console block, or a row of a table"


def test_every_code_of_the_page_exists() -> None:
    assert sorted((HEADINGS | ROWS) - codes() - kinds()) == []


@pytest.mark.parametrize("code", sorted(codes() - NOT_PROVOKED.keys() - PROVOKED_HERE.keys()))
def test_a_code_is_shown_with_its_remedy_or_provoked_by_a_test(code: str) -> None:
    tests = sources_of_tests()
    assert any((code in SHOWN, f'"{code}"' in tests, f"error[{code}]" in tests))


@pytest.mark.parametrize("code", sorted(PROVOKED_HERE))
def test_a_code_that_a_job_file_hides_is_raised_with_the_words_of_the_page(code: str, tmp_path: Path) -> None:
    changes, catalogue = PROVOKED_HERE[code]
    (tmp_path / "catalogue.yaml").write_text(CATALOGUE, encoding="utf-8")
    known = load_catalogue(tmp_path / "catalogue.yaml" if catalogue else None)
    job = JobSpec.model_validate({**JOB, **changes})
    with pytest.raises(BatchrunError) as raised:
        check_budget(job, prepare(job, known))
    assert raised.value.code == code
    assert catalogue or (raised.value.message in TEXT and f"→ {raised.value.remedy}" in TEXT)
    assert raised.value.remedy


def test_every_kind_of_a_failed_call_is_in_the_table() -> None:
    assert sorted(kinds() - ROWS) == []


def test_kinds_are_shown_as_the_simulator_brings_them_about() -> None:
    block = re.search(r"print\(f\"\{item\.error_kind\}.*?```text\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    shown = set(re.findall(r"^(\w+): ", block[1], re.MULTILINE))
    assert sorted(kinds() - shown) == ["internal", "invalid_answer", "local", "lost", "parts", "template"]
