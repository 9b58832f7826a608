"""CPU, speed and memory of calls, of all contenders side by side.

    python -m benchmarks                          all of it, about four minutes
    python -m benchmarks --quick                  one short round
    python -m benchmarks --scenario chunks --contender bare --contender batchrun --rounds 5

Others measure something else: `benchmarks.workers` one worker process and two, `benchmarks.rows` loading and reports,
`benchmarks.pictures` local pictures.

The server has a process of its own, and so has each contender, each time. They take turns; machines are noisy, so the
figures are medians over the rounds, and each ratio is the median of the ratios within a round, with its range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from benchmarks.contenders import CONTENDERS, Figure, available
from benchmarks.scenarios import SCENARIOS, Scenario

PAIRS = (("batchrun", "bare"), ("batchrun", "transport"), ("openai", "batchrun"), ("flexllm", "batchrun"))
"""What is set against what."""


@contextmanager
def serving(scenario: Scenario) -> Iterator[str]:
    """The address of a server that answers so."""
    command = [sys.executable, "-m", "benchmarks.server", str(scenario.chunks), str(scenario.seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def figure(name: str, scenario: str, url: str, calls: int) -> Figure:
    command = [sys.executable, "-m", "benchmarks.contenders", name, scenario, url, str(calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Figure(**json.loads(done.stdout))


def compare(name: str, contenders: Sequence[str], *, rounds: int, quick: bool) -> None:
    scenario = SCENARIOS[name]
    numbers = {contender: scenario.number(contender, quick=quick) for contender in contenders}
    figures: dict[str, list[Figure]] = {contender: [] for contender in contenders}
    with serving(scenario) as url:
        for _ in range(rounds):
            for contender in contenders:
                figures[contender].append(figure(contender, name, url, numbers[contender]))
    print(f"\n{scenario.title}")
    for line in table(figures, numbers):
        print(line)


def table(figures: dict[str, list[Figure]], numbers: dict[str, int]) -> Iterator[str]:
    yield f"{'':29}{'calls':>6}{'CPU ms':>8}{'calls/s':>8}{'peak MB':>8}{'+ MB':>6}"
    for name, rounds in figures.items():
        yield (
            f"{CONTENDERS[name][0]:29}{numbers[name]:6}{median(figure.cpu_ms for figure in rounds):8.2f}"
            f"{median(figure.per_second for figure in rounds):8.0f}{median(figure.peak_mb for figure in rounds):8.0f}"
            f"{median(figure.peak_mb - figure.idle_mb for figure in rounds):6.0f}"
        )
    for name, base in PAIRS:
        if name in figures and base in figures:
            pairs = list(zip(figures[name], figures[base], strict=True))
            cpu = [over.cpu_ms / under.cpu_ms for over, under in pairs]
            speed = [over.per_second / under.per_second for over, under in pairs]
            yield f"{name + ' / ' + base:29}CPU {spread(cpu)}, calls/s {spread(speed)}"


def spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="may be given more than once")
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="may be given more than once")
    parser.add_argument("--rounds", type=int, default=None, help="3 unless --quick")
    parser.add_argument("--quick", action="store_true", help="one round of a third of the calls")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, median of {rounds} round(s)")
    for name in options.scenario or SCENARIOS:
        wanted = options.contender or CONTENDERS
        contenders = [contender for contender in wanted if available(contender, SCENARIOS[name])]
        compare(name, contenders, rounds=rounds, quick=options.quick)


if __name__ == "__main__":
    main()
