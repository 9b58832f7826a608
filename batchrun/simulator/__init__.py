"""A local stand-in for Model Studio (OpenAI-compatible mode and native protocol), AceData and Moonshot.

It breaks on request and keeps a bill book, the same one for all of them.

    with start(Options(ttft=0, tokens_per_second=0)) as simulator:
        client = openai.OpenAI(base_url=simulator.base_url("beijing"), api_key=simulator.keys["beijing"])
        ...
        dashscope.base_http_api_url = simulator.native_url("beijing")
        ...
        rows = simulator.book()

It is written from the provider contract alone and imports nothing of the rest of batchrun, so that the two can
be wrong independently. The faults are described in `faults`, the addresses in `python -m batchrun.simulator --help`.
"""

from batchrun.simulator.book import BookRow, read_book
from batchrun.simulator.faults import FaultSpecError
from batchrun.simulator.options import Bill, Options
from batchrun.simulator.prices import Usage
from batchrun.simulator.running import Running, SimulatorFailed, start
from batchrun.simulator.stats import Stats

__all__ = [
    "Bill",
    "BookRow",
    "FaultSpecError",
    "Options",
    "Running",
    "SimulatorFailed",
    "Stats",
    "Usage",
    "read_book",
    "start",
]
