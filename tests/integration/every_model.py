"""Every model of every simulated endpoint, once in each way that its rules allow: one run, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from batchrun.catalogue import Catalogue, Endpoint, Model, load_catalogue
from batchrun.database import connect, reading
from batchrun.jobfile.spec import JobFile, JobSpec
from batchrun.loading.loader import load
from batchrun.pacing.limits import Limits
from batchrun.reports.cost import CostLine, cost_by
from batchrun.running import run
from batchrun.settings import Settings
from batchrun.simulated import address_of
from batchrun.simulator import BookRow, Running
from batchrun.tables import Record, answers, attempts, items, jobs, usage
from tests.integration.running import KEY, KEY_VARIABLE

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP4TyJgGNUwqmFUw9DVAAAJ0/AfXiOaiwAAAAB"
    "JRU5ErkJggg=="
)
WAYS = {None: "", True: "-thinking", False: "-direct"}
"""What a job says about thinking, and how its name ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One way of asking one model: a job of one item, or of two where pictures are taken."""

    job: str
    provider: str
    model: str
    batch_chat_of: str | None
    """What the job names as its provider instead."""
    stream: bool
    thinking: bool | None
    """What the job says."""
    thinks: bool
    """What is to come of it."""
    images: bool

    def spec(self) -> JobSpec:
        rows = [{"id": "text", "text": self.job}]
        rows += [{"id": "image", "text": self.job, "image": PICTURE}] if self.images else []
        document = {
            "name": self.job,
            "provider": self.batch_chat_of or self.provider,
            "mode": "batch-chat" if self.batch_chat_of else "online",
            "model": self.model,
            "inputs": {"items": rows},
            "prompt": "{{ text }}",
            "params": {"max_tokens": 2000},
            "stream": self.stream,
        }
        thinking = {} if self.thinking is None else {"thinking": {"enabled": self.thinking}}
        return JobSpec.model_validate(document | thinking)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that the run has left."""

    asked: tuple[Asked, ...]
    items: dict[str, list[Record]]
    """By job."""
    answers: dict[int, Record]
    usage: dict[int, Record]
    """By attempt, as the answers are."""
    requests: dict[str, str | None]
    """By job and item, `job/item`: the id that the answer came with."""
    book: dict[str, BookRow]
    costs: dict[str, CostLine]
    """By job."""


def ways(endpoint: Endpoint, model: Model) -> Iterator[Asked]:
    switchable = model.rules.thinking == "switchable"
    plain_only = endpoint.batch_chat_of is not None
    for stream in (True,) if model.rules.stream_only else (False,) if plain_only else (True, False):
        for thinking in (True, False) if switchable else (None,):
            name = f"{endpoint.region or endpoint.provider}.{model.id}{'' if stream else '-plain'}{WAYS[thinking]}"
            yield Asked(
                job=name,
                provider=endpoint.name,
                model=model.id,
                batch_chat_of=endpoint.batch_chat_of,
                stream=stream,
                thinking=thinking,
                thinks=thinking or model.rules.thinking == "always",
                images=model.images,
            )


def all_ways(catalogue: Catalogue) -> tuple[Asked, ...]:
    simulated = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.simulated]
    return tuple(asked for place in simulated for model in place.models.values() for asked in ways(place, model))


def placed(catalogue: Catalogue, simulator: Running) -> Catalogue:
    """The simulated endpoints at their addresses, without the vendors' limits."""
    added = {}
    for name, endpoint in catalogue.endpoints.items():
        if endpoint.simulated:
            models = {key: replace(model, limits=Limits()) for key, model in endpoint.models.items()}
            added[name] = replace(endpoint, models=models).at(address_of(simulator.url, endpoint))
    return replace(catalogue, endpoints={**catalogue.endpoints, **added})


def ask_all(url: str, folder: Path, simulator: Running) -> Outcome:
    catalogue = placed(load_catalogue(), simulator)
    asked = all_ways(catalogue)
    engine = connect(url)
    settings = Settings(database_url=url, catalogue=None, environment={KEY_VARIABLE: KEY})
    file = JobFile(version=1, jobs=tuple(one.spec() for one in asked), path=None)
    ids = [loaded.job_id for loaded in load(engine, file, catalogue, base=folder)]
    run(engine, ids, catalogue, settings)
    with reading(engine) as connection:
        names = {row.id: row.name for row in connection.execute(jobs.select())}
        found: dict[str, list[Record]] = {name: [] for name in names.values()}
        for row in connection.execute(items.select().order_by(items.c.id)):
            found[names[row.job_id]].append(row)
        sent = {row.id: row.request_id for row in connection.execute(attempts.select())}
        outcome = Outcome(
            asked=asked,
            items=found,
            answers={row.attempt_id: row for row in connection.execute(answers.select())},
            usage={row.attempt_id: row for row in connection.execute(usage.select())},
            requests={
                f"{name}/{item.custom_id}": sent.get(item.answer_id) for name, rows in found.items() for item in rows
            },
            book={name: row for row in simulator.book() for name in (row.request_id, row.chat_id)},
            costs={line.key: line for line in cost_by(connection, "job")},
        )
    engine.dispose()
    return outcome


def works(outcome: Outcome, asked: Asked) -> bool:
    """Every item has an answer, thought about as was asked, and costs what the simulator has booked."""
    return all(answered_as_asked(outcome, asked, item) for item in outcome.items[asked.job])


def answered_as_asked(outcome: Outcome, asked: Asked, item: Record) -> bool:
    if item.answer_id is None:
        return False
    answer, line = outcome.answers[item.answer_id], outcome.usage[item.answer_id]
    booked = outcome.book[outcome.requests[f"{asked.job}/{item.custom_id}"] or ""]
    return bool(
        answer.text
        and bool(answer.reasoning) is asked.thinks
        and line.cost_low == booked.amount == line.cost_high
        and (line.input_tokens, line.output_tokens) == (booked.billed.input, booked.billed.output)
    )


def billed(outcome: Outcome, asked: Asked) -> Decimal | None:
    """What the simulator has booked for a job; None where it has no price."""
    rows = [outcome.book[outcome.requests[f"{asked.job}/{item.custom_id}"] or ""] for item in outcome.items[asked.job]]
    amounts = [row.amount for row in rows]
    return None if None in amounts else sum((amount for amount in amounts if amount is not None), Decimal(0))
