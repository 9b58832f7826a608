"""Counts what ran on each database, and fails the session where a test passed on some of them only."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from tests.servers import NO_SERVER, OLDER

PARAMETER = "database_kind"
KINDS = ("sqlite", "postgresql")
OLDER_KIND = f"postgresql-{OLDER}"
on_every_database = pytest.mark.parametrize(PARAMETER, [*KINDS, OLDER_KIND], indirect=True)
"""For the few tests that show what an older major version could take amiss."""
PROPERTY = "database"
WITHOUT_SERVER = "without server"


class BothDatabases:
    """A plugin of the process that collects the results."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, str]] = defaultdict(dict)
        """For each test, by database, `passed`, `failed`, `skipped` or `without server`."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = dict(report.user_properties).get(PROPERTY)
        if isinstance(kind, str) and (report.when == "call" or report.outcome != "passed"):
            outcome = WITHOUT_SERVER if NO_SERVER in str(report.longrepr) else report.outcome
            self.outcomes[shared_name(report.nodeid, kind)].setdefault(kind, outcome)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.one_sided() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.outcomes:
            return
        terminalreporter.write_line(
            "databases: " + ", ".join(f"{kind} {self.count(kind)}" for kind in (*KINDS, OLDER_KIND))
        )
        for name in self.one_sided():
            outcomes = ", ".join(f"{outcome} on {kind}" for kind, outcome in self.outcomes[name].items())
            terminalreporter.write_line(f"FAILED {name}: {outcomes}; it must pass on all", red=True)

    def count(self, kind: str) -> str:
        counter = Counter(outcomes[kind] for outcomes in self.outcomes.values() if kind in outcomes)
        return " ".join(f"{number} {outcome}" for outcome, number in sorted(counter.items())) or "not run"

    def one_sided(self) -> list[str]:
        """The tests that were selected on both databases, passed on one and were skipped on the other."""
        return [name for name, outcomes in self.outcomes.items() if set(outcomes.values()) == {"passed", "skipped"}]


def mark(item: pytest.Item) -> None:
    """Writes into the test's report which database it ran on."""
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        kind = item.callspec.params.get(PARAMETER)
        if kind is not None:
            item.user_properties.append((PROPERTY, kind))


def shared_name(nodeid: str, kind: str) -> str:
    """The name that a test has on both databases."""
    test, _, parameters = nodeid.partition("[")
    return f"{test}[{parameters.replace(kind, '*', 1)}"
