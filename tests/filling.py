"""Rows for tests that read a database, without loading and running jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

import sqlalchemy as sa
from sqlalchemy import Connection

from batchrun.states import State
from batchrun.tables import answers, attempts, items, jobs, profiles, usage, workers

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
WORKER = "worker-1"


class Filling:
    """Puts jobs, items and attempts into a database. Everything has a default that a test rarely cares about."""

    def __init__(self, connection: Connection, *, first: bool = True) -> None:
        """`first` is False where another one has filled the same database before."""
        self.connection = connection
        self._numbers = count(1)
        if first:
            connection.execute(sa.insert(workers).values(id=WORKER, host="elsewhere", pid=1, started_at=NOON))

    def job(
        self,
        name: str,
        *,
        simulated: bool = False,
        provider: str = "model-studio",
        region: str = "singapore",
        model: str = "qwen3-vl-plus",
        spec: Mapping[str, object] | None = None,
        **values: object,
    ) -> int:
        key = {"provider": provider, "region": region, "model": model, "key_env": f"KEY_{next(self._numbers)}"}
        profile = self.connection.execute(sa.insert(profiles).values(**key).returning(profiles.c.id)).scalar_one()
        made: int = self.connection.execute(
            sa.insert(jobs)
            .values(
                name=name,
                profile_id=profile,
                provider=provider,
                region=region,
                model=model,
                spec=spec or {},
                identity={},
                tags=[],
                simulated=simulated,
                created_at=NOON,
                **{"currency": "USD", **values},
            )
            .returning(jobs.c.id)
        ).scalar_one()
        return made

    def item(
        self,
        job: int,
        custom_id: str | None = None,
        *,
        state: State = State.PENDING,
        path: str | None = None,
        variables: Mapping[str, object] | None = None,
        **values: object,
    ) -> int:
        name = custom_id or path or f"item-{next(self._numbers)}"
        media: Sequence[Mapping[str, object]] = []
        if path is not None:
            filename = path.rpartition("/")[2]
            media = [{"kind": "image", "path": path, "size": 1}]
            variables = {"path": path, "filename": filename, "stem": filename.rpartition(".")[0], **(variables or {})}
        made: int = self.connection.execute(
            sa.insert(items)
            .values(
                job_id=job,
                custom_id=name,
                row_hash="-",
                variables=variables or {},
                media=media,
                state=state.value,
                **values,
            )
            .returning(items.c.id)
        ).scalar_one()
        return made

    def attempt(
        self,
        item: int,
        *,
        outcome: str = "complete",
        at: datetime = NOON,
        text: str | None = None,
        reasoning: str = "",
        finish_reason: str | None = "stop",
        is_answer: bool = True,
        **values: object,
    ) -> int:
        """An attempt; `text` makes an answer of it, which is the item's unless `is_answer` is False."""
        fence = next(self._numbers)
        self.connection.execute(sa.update(items).where(items.c.id == item).values(fence=fence))
        job = self.connection.execute(
            sa.select(items.c.job_id, jobs.c.profile_id)
            .join(jobs, jobs.c.id == items.c.job_id)
            .where(items.c.id == item)
        ).one()
        made: int = self.connection.execute(
            sa.insert(attempts)
            .values(
                item_id=item,
                job_id=job.job_id,
                profile_id=job.profile_id,
                worker_id=WORKER,
                fence=fence,
                outcome=outcome,
                claimed_at=at,
                sent_at=at,
                ended_at=at,
                expected_tokens=0,
                **values,
            )
            .returning(attempts.c.id)
        ).scalar_one()
        if text is not None:
            self.connection.execute(
                sa.insert(answers).values(
                    attempt_id=made,
                    text=text,
                    reasoning=reasoning,
                    finish_reason=finish_reason,
                    complete=outcome == "complete",
                )
            )
        if outcome == "complete" and is_answer:
            self.connection.execute(sa.update(items).where(items.c.id == item).values(answer_id=made))
        return made

    def usage(
        self,
        attempt: int,
        *,
        at: datetime = NOON,
        low: str | None = "0.5",
        high: str | None = None,
        currency: str | None = "USD",
        **values: object,
    ) -> None:
        """The usage row of an attempt; `low` alone is an exact cost, None an unknown one."""
        row = self.connection.execute(
            sa.select(jobs).join(attempts, attempts.c.job_id == jobs.c.id).where(attempts.c.id == attempt)
        ).one()
        upper = low if high is None else high
        self.connection.execute(
            sa.insert(usage).values(
                attempt_id=attempt,
                job_id=row.id,
                provider=row.provider,
                region=row.region,
                model=row.model,
                at=at,
                simulated=row.simulated,
                cost_low=None if low is None else Decimal(low),
                cost_high=None if upper is None else Decimal(upper),
                currency=None if low is None else currency,
                **{"input_tokens": 100, "output_tokens": 10, **values},
            )
        )

    def call(
        self, job: int, *, at: datetime = NOON, low: str | None = "0.5", high: str | None = None, currency: str = "USD"
    ) -> int:
        """An item that is done, with its one billed attempt. Returns the item."""
        item = self.item(job, state=State.DONE)
        self.usage(self.attempt(item, at=at, text="done"), at=at, low=low, high=high, currency=currency)
        return item
