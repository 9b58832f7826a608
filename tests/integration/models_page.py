"""The page docs/models.md: what the catalogue knows of each model, and what came of asking it at the simulator.

`python -m tests.integration.models_page` asks all of them and writes the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchrun.catalogue import Catalogue, Endpoint, Model, load_catalogue
from tests.conftest import migrate
from tests.integration.every_model import Outcome, ask_all, works
from tests.integration.running import running_simulator

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
COMMAND = "python -m tests.integration.models_page"
HEAD = f"""\
# Models

What the catalogue knows of every model, and what came of asking each of them at
the bundled simulator, which was written from the vendors' pages alone. Written
by `{COMMAND}`; a test tells when the page is
stale. Prices, sizes and announced ends: `batchrun models --wide`.

* **Sees**: `I` images, `V` videos.
* **Thinks**: `never`, `always`, or as the job's `thinking` says.
* **Can**: `T` calls functions, `J` JSON as it is told (`S`: by a schema), `W`
  searches the web, `P` goes on with the beginning of an answer, `C` cheaper
  repeated input; `–` can't, `?` isn't known.
* The last columns are the wire forms. Each model was asked for a text and, if
  it sees, about a picture, streamed and plain (QVQ only streams), with and
  without thinking if there is a choice. `8/8`: all eight calls were answered,
  and the report of each was what the simulator had booked, to the last digit.
  Where no price is known, none was reported. Batch chat answers plainly alone,
  so `4/4` is all.
"""
LETTERS = {"web_search": "W", "partial": "P", "cache": "C"}
FORMS = {"json_schema": "S", "json_object": "J", "none": "–"}


def page(catalogue: Catalogue, outcome: Outcome) -> str:
    real = [endpoint for endpoint in catalogue.endpoints.values() if simulators(catalogue, endpoint)]
    sections = [section(catalogue, endpoint, outcome) for endpoint in real if endpoint.models_of is None]
    return "\n".join([HEAD, *sections])


def simulators(catalogue: Catalogue, real: Endpoint) -> list[Endpoint]:
    """Of the endpoint itself, and of the same models in another wire form."""
    forms = {other.name for other in catalogue.endpoints.values() if real.name in (other.name, other.models_of)}
    return [endpoint for endpoint in catalogue.endpoints.values() if endpoint.simulates in forms]


def section(catalogue: Catalogue, real: Endpoint, outcome: Outcome) -> str:
    places = simulators(catalogue, real)
    rows = [["Model", "Thinks", "Sees", "Can", *(place.dialect for place in places)]]
    rows += [[*facts(model), *(result(outcome, place, model.id) for place in places)] for model in real.models.values()]
    return f"## {real.name}\n\n" + "\n".join(table(rows)) + "\n"


def facts(model: Model) -> list[str]:
    sees = "".join(letter for letter, taken in (("I", model.images), ("V", model.videos)) if taken)
    thinks = {"switchable": "as told"}.get(model.rules.thinking, model.rules.thinking)
    tools = {True: "T", False: "–", None: "?"}[model.tools]
    form = "?" if model.structured is None else FORMS[model.structured.form]
    known = "".join(
        letter if name in model.features else "–" if name in model.lacks else "?" for name, letter in LETTERS.items()
    )
    return [model.id, thinks, sees or "–", f"{tools}{form}{known}"]


def result(outcome: Outcome, place: Endpoint, model: str) -> str:
    asked = [one for one in outcome.asked if (one.provider, one.model) == (place.name, model)]
    calls = [len(outcome.items[one.job]) for one in asked]
    good = [number for one, number in zip(asked, calls, strict=True) if works(outcome, one)]
    return f"{sum(good)}/{sum(calls)}"


def table(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    for line in (lines[0], ["-" * width for width in widths], *lines[1:]):
        yield f"| {' | '.join(line)} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_simulator() as simulator:
        url = f"sqlite:///{folder}/models.db"
        migrate(url)
        PAGE.write_text(page(load_catalogue(), ask_all(url, Path(folder), simulator)), encoding="utf-8")


if __name__ == "__main__":
    main()
