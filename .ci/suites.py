"""Prints how long each suite of tests took, and fails where one took longer than its budget.

Usage: suites.py tests.xml, a report of pytest in the form of JUnit. A suite is a folder below `tests`; its time is the
sum of its tests, whatever ran beside them.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

BUDGETS = {
    "unit": 180,
    "simulator": 240,
    "migrations": 60,
    "integration": 900,
    "workers": 420,
    "acceptance": 600,
    "docs": 240,
}
"""Seconds. A new suite takes its place here."""


def seconds_by_suite(report: Path) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it a moment ago
        _, _, below = case.get("classname", "").partition("tests.")
        seconds[below.split(".")[0]] += float(case.get("time", "0"))
    return dict(seconds)


def main(report: Path) -> int:
    too_long = 0
    for suite, seconds in sorted(seconds_by_suite(report).items()):
        budget = BUDGETS.get(suite)
        if budget is None:
            sys.stderr.write(f"the suite {suite!r} has no budget; write one into {Path(__file__).name}\n")
        else:
            sys.stdout.write(f"budget: tests/{suite} {seconds:.0f} s of {budget} s\n")
        too_long += budget is None or seconds > budget
    return min(too_long, 1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
