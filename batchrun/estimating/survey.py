"""One pass over the rows of a job: what those that are left need, and what those that have ended have used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from batchrun.alike import request_name, row_name
from batchrun.database import reading
from batchrun.errors import TemplateError
from batchrun.estimating.copies import Copies
from batchrun.estimating.spread import Quantity, Spread
from batchrun.jobfile.spec import JobSpec
from batchrun.loading.itemising import asked, batches, checked_rows, has_video, is_shared, media_of
from batchrun.loading.loader import Earlier
from batchrun.loading.measuring import Watched
from batchrun.loading.needs import Need, Needs
from batchrun.messages import JsonValue
from batchrun.pacing.limits import Limits
from batchrun.reports.measured import Measured, limits_of, measured, open_items
from batchrun.rows.inputs import Row
from batchrun.states import OPEN, State
from batchrun.store.jobs import last_item
from batchrun.tables import Record

if TYPE_CHECKING:
    from sqlalchemy import Engine


SHARED = OPEN | {State.DONE, State.TRUNCATED}
"""Items that rows which are added get an answer from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The job as the database has it. It is asked in short transactions, as reading the source may take long."""

    engine: Engine
    job: Record
    open: int
    """Its items that haven't ended."""

    @property
    def limits(self) -> Limits:
        """Those of its profile, as they stand there now."""
        with reading(self.engine) as connection:
            return limits_of(connection, self.job.id)

    def last_item(self) -> int:
        with reading(self.engine) as connection:
            return last_item(connection)

    def measured(self, names: list[str]) -> dict[str, Measured]:
        with reading(self.engine) as connection:
            return measured(connection, self.job.id, names)

    def open_items(self) -> Iterator[Record]:
        after = 0
        while True:
            with reading(self.engine) as connection:
                page = open_items(connection, self.job.id, after)
            if not page:
                return
            yield from page
            after = page[-1].id


@dataclass(slots=True, kw_only=True)
class Survey:
    """Counts and sums, never rows."""

    needs: Needs
    left: int = 0
    ended: int = 0
    cancelled: int = 0
    unsendable: int = 0
    """Items whose picture can't be sent: they will fail without a call."""
    shared: int = 0
    """Items that will get the answer of another one without a call, as they ask the same."""
    input: Quantity = field(default_factory=Quantity)
    output: Quantity = field(default_factory=Quantity)
    cost: Quantity = field(default_factory=Quantity)
    seconds: Spread = field(default_factory=Spread)
    calls: int = 0
    """Of the items that have ended; those that may have cost money."""
    charged: int = 0
    """Items that such calls were made for."""
    reserved: tuple[Decimal, Decimal] | None = None
    """The least and the most that one of the calls that are left will have to be reserved for."""
    videos: bool = False
    """Whether a row of the source has one."""

    def meet(self, need: Need | None, bound: int | None, *, shares: bool) -> None:
        """An item that has no answer yet, and may get that of another one."""
        if shares:
            self.shared += 1
        else:
            self.expect(need, bound)

    def expect(self, need: Need | None, bound: int | None) -> None:
        """An item that is still to be called."""
        if need is None:
            self.unsendable += 1
            return
        self.left += 1
        self.input.expect(need.input.low, need.input.high)
        self.output.expect(need.output.low, need.output.high)
        if need.cost is not None:
            self.cost.expect(*need.cost)
        most = self.needs.most(bound, need.output.high)
        if most is not None:
            least, greatest = self.reserved or (most, most)
            self.reserved = min(least, most), max(greatest, most)

    def observe(self, need: Need | None, item: Measured) -> None:
        """An item that has ended."""
        if item.state == State.CANCELLED:
            self.cancelled += 1
            return
        self.ended += 1
        if item.shares:
            return
        self.calls += item.calls
        self.charged += item.calls > 0
        if item.seconds is not None:
            self.seconds.add(item.seconds, item.seconds)
        if need is None:
            return
        if item.input_tokens is not None and item.output_tokens is not None:
            self.input.observe(*item.input_tokens, least=need.input.low, charged=item.calls > 0)
            self.output.observe(*item.output_tokens, least=need.output.low, charged=item.calls > 0)
        if need.cost is None or item.cost_low is None or item.cost_high is None:
            return
        if item.currency in (None, self.needs.currency):
            self.cost.observe(item.cost_low, item.cost_high, least=need.cost[0], charged=item.calls > 0)


def survey(
    job: JobSpec,
    needs: Needs,
    base: Path,
    source: Watched,
    known: Known | None,
    *,
    capped: bool,
    on_rows: Callable[[int], None],
) -> Survey:
    """Look at every row of the source, and at open items of the database that the source no longer names.

    `on_rows` hears how many rows a batch had. Raises SpecError for a row that can't be loaded.
    """
    found = Survey(needs=needs)
    last = 0 if known is None else known.last_item()
    earlier = Earlier(last=last, named=bytearray(last // 8 + 1))
    still_open = 0
    with Copies(needs.root) as copies:
        for batch in batches(checked_rows(job, needs.plan, base, source, capped=capped)):
            items = {} if known is None else known.measured([row.custom_id for row in batch])
            found.videos = found.videos or any(map(has_video, batch))
            for row in batch:
                texts, bound = asked(job, needs.plan, row, capped=capped)
                media, item = media_of(row), items.get(row.custom_id)
                need, name = needs.of(row.variables, texts, media), name_of(job, row, texts, media)
                if item is None:
                    found.meet(need, bound, shares=need is not None and copies.is_one(name, media))
                    continue
                earlier.is_repeated(item.id)
                if item.state in OPEN:
                    still_open += 1
                    found.meet(need, bound, shares=item.shares)
                else:
                    found.observe(need, item)
                if item.state in SHARED and not item.shares:
                    copies.note(name, media)
            on_rows(len(batch))
    if known is not None and still_open < known.open:
        for record in known.open_items():
            if not earlier.is_repeated(record.id):
                found.meet(need_of(needs, record), record.input_bound, shares=record.waits_for is not None)
    return found


def name_of(job: JobSpec, row: Row, texts: Sequence[str], media: Sequence[Mapping[str, JsonValue]]) -> str | None:
    """What the request is called when it is loaded; None where it is bought whatever others ask."""
    return request_name(texts, media, row_name(texts, media)) if is_shared(job, row) else None


def need_of(needs: Needs, record: Record) -> Need | None:
    try:
        return needs.of(record.variables, needs.plan.texts(record.variables), record.media)
    except TemplateError:
        return None
