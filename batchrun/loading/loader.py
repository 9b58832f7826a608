"""From a job file to rows: all of it in one transaction, or nothing.

Loading the same file again adds only what is new. What would make an answer the answer to another question (the
identity of a job, a row that was already called) is refused, with the difference shown.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Engine

from batchrun.catalogue import Catalogue, Endpoint
from batchrun.counting.foreseen import Foreseen
from batchrun.database import clock, lock_loading, reading, writing
from batchrun.errors import (
    CatalogueError,
    ChangedError,
    Problem,
    SpecError,
    UsageError,
)
from batchrun.jobfile.spec import JobFile, JobSpec, differences, stored_spec
from batchrun.loading.duplicates import TAKES, find_duplicates
from batchrun.loading.foreseeing import Foreseeing
from batchrun.loading.itemising import (
    NO_OUTPUT_BOUND,
    NO_SOUND,
    TOKENS_PER_ANSWER,
    bad_row,
    batches,
    checked_rows,
    expected,
    has_video,
    needs_of,
    new_item,
)
from batchrun.loading.measuring import Videos, Watched, kept_facts, watched, with_facts
from batchrun.messages import JsonValue
from batchrun.output.visible import money_text
from batchrun.pacing.limits import DEFAULT_CONCURRENCY
from batchrun.pacing.windows import stored_window
from batchrun.plan import Plan, prepare
from batchrun.rows.inputs import Row, media_root, pdf_files
from batchrun.showing import clean, counted
from batchrun.store import jobs as store
from batchrun.store import sharing
from batchrun.store.jobs import NewItem
from batchrun.tables import FACTS, MOST_MONEY, Record

SAME = 80
"""Characters that two long texts may have in common at their start before that is left out of a message."""
SHOWN = 5
"""Differences or rows that a message lists."""

SETTABLE = (*store.LIMIT_NAMES, "cap", "priority")
"""Columns that both a job file and `batchrun set` write."""

_QUERY = re.compile(r"(https?://[^\s\"'<>?#]*)[?#][^\s\"'<>]*", re.IGNORECASE)
_USER = re.compile(r"(https?://)[^\s\"'<>/]*@", re.IGNORECASE)
_DATA = re.compile(r"(data:image/[\w.+-]*;base64,)[\w+/=]{20,}", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What became of one job of the file."""

    job_id: int
    name: str
    simulated: bool
    added: int = 0
    unchanged: int = 0
    updated: int = 0
    """Rows that changed before they were ever called."""
    duplicates: int = 0
    """Rows that ask what another one asks, and wait for its answer since."""
    created: bool = False
    changed: list[str] = field(default_factory=list)
    """Settings that took effect, such as `limits`."""
    notes: list[str] = field(default_factory=list)
    """What the user should know before it costs money."""
    cap: Decimal | None = None
    """The budget that holds: the job file's, or one that was set by hand since."""
    concurrency: int | None = None


def load(
    engine: Engine,
    job_file: JobFile,
    catalogue: Catalogue,
    *,
    base: Path,
    on_rows: Callable[[int], None] = lambda _: None,
) -> list[Loaded]:
    """Load every job of `job_file`; `base` is its folder. `on_rows` hears how many rows were read so far.

    Raises SpecError, CatalogueError, UsageError, ChangedError; then nothing was written.
    """
    plans = prepared_all(job_file, catalogue)
    sources = {  # before anybody has to wait for this transaction
        job.name: watched(job, base, partial(videos_of, engine, job, catalogue.endpoint(job.provider)))
        for job, _ in plans
    }
    with writing(engine) as connection:
        lock_loading(connection)
        store.lock_named(connection, {job.name for job, _ in plans})
        loader = Loader(connection=connection, now=clock(connection), base=base, on_rows=on_rows, sources=sources)
        loaded = [loader.load(job, plan, catalogue.endpoint_for(job.provider, job.mode)) for job, plan in plans]
    for (job, _), made in zip(plans, loaded, strict=True):
        if job.deduplicate:
            made.duplicates += find_duplicates(engine, made.job_id, media_root(job, base))
    return loaded


def videos_of(engine: Engine, job: JobSpec, endpoint: Endpoint) -> Videos:
    """What is known of the local videos of a job since it was loaded."""
    with reading(engine) as connection:
        found = store.job_named(connection, job.name, simulated=endpoint.simulated)
        rows = () if found is None else store.media_with(connection, found.id, FACTS)
        return dict(facts for media in rows for facts in kept_facts(media))


def prepared_all(job_file: JobFile, catalogue: Catalogue) -> list[tuple[JobSpec, Plan]]:
    """Every job with its plan, checked against the catalogue. Raises SpecError with all that is wrong."""
    plans: list[tuple[JobSpec, Plan]] = []
    problems: list[Problem] = []
    for number, job in enumerate(job_file.jobs):
        try:
            plan = prepare(job, catalogue)
            check_budget(job, plan)
            plans.append((job, plan))
        except (CatalogueError, UsageError) as error:
            problems.append(
                Problem(
                    file=job_file.path,
                    line=None,
                    column=None,
                    field=f"jobs[{number}] `{job.name}`",
                    message=error.message,
                    remedy=error.remedy,
                )
            )
    if problems:
        raise SpecError(problems)
    return plans


def check_budget(job: JobSpec, plan: Plan) -> None:
    """A cap holds only where the most that a call can cost is known before it is made."""
    if job.budget is None:
        return
    currency = plan.currency
    if currency is None:
        raise UsageError(
            f"a budget needs a price, and the catalogue has none for {job.model} at {job.provider}"
            + (f": {plan.model.unpriced}" if plan.model.unpriced else ""),
            code="budget-unpriced",
            remedy="add the price to a catalogue file of your own, or delete `budget`: the cost is then unknown",
        )
    if currency != job.budget.currency:
        raise UsageError(
            f"the budget is in {job.budget.currency}, the price of {job.model} in {currency}",
            code="budget-currency",
            remedy=f"write the budget in {currency}; batchrun knows no exchange rates",
        )
    if job.budget.max_cost > MOST_MONEY:
        raise UsageError(
            f"a budget of {job.budget.cap} is more than can be counted",
            code="budget-large",
            remedy=f"write at most {MOST_MONEY:,} {currency}",
        )
    if not plan.written and plan.output_bound() is None:  # a written request has a bound of its own
        raise UsageError(f"{NO_OUTPUT_BOUND} {job.model}", code="budget-unbounded", remedy="set params.max_tokens")


@dataclass(slots=True, kw_only=True)
class Earlier:
    """The items that were there before this load, and which of them a row has named so far."""

    last: int
    """The highest id among them."""
    named: bytearray
    """A bit for each id up to that: a set would take 90 MB for a million rows."""

    def is_repeated(self, item_id: int) -> bool:
        """Whether a row of this load named this item before; remembers that one does now."""
        if item_id > self.last:
            return True
        place, bit = item_id // 8, 1 << item_id % 8
        before = self.named[place] & bit
        self.named[place] |= bit
        return bool(before)

    def is_left_out(self, item_id: int) -> bool:
        """Whether this item was there before, and no row of this load has named it."""
        return item_id <= self.last and not self.named[item_id // 8] & 1 << item_id % 8


@dataclass(slots=True, kw_only=True)
class Loader:
    """One load of a file: a connection inside its transaction, and how far it has come."""

    connection: Connection
    now: datetime
    base: Path
    on_rows: Callable[[int], None]
    sources: Mapping[str, Watched]
    """By job."""
    rows: int = 0

    def load(self, job: JobSpec, plan: Plan, endpoint: Endpoint) -> Loaded:
        loaded = self.job_row(job, plan, endpoint)
        last = store.last_item(self.connection)
        earlier = Earlier(last=last, named=bytearray(last // 8 + 1))
        changed: list[str] = []
        replaced: list[int] = []
        most: Decimal | None = Decimal(0)
        capped = loaded.cap is not None
        source = self.sources[job.name]
        needs = needs_of(job, plan, self.base, self.now, source.videos)
        new = Foreseeing(needs)
        videos_seen = False
        for batch in batches(checked_rows(job, plan, self.base, source, capped=capped)):
            made = [remembering(new_item(job, plan, row, capped=capped), source.videos) for row in batch]
            for item in self.add(loaded, made, batch, earlier, changed, replaced):
                new.add(item.variables, item.media, item.input_bound)
            if loaded.created and loaded.added == len(made):  # the first batch of a new job
                store.change_job(self.connection, loaded.job_id, {"expected_tokens": expected(plan, needs, batch)})
            most = None if most is None or not capped else dearest(plan, most, made)
            videos_seen = videos_seen or any(map(has_video, batch))
            self.rows += len(batch)
            self.on_rows(self.rows)
        if changed:
            raise rows_changed(job, changed)
        gone = [part for part in store.parts_never_called(self.connection, replaced) if earlier.is_left_out(part)]
        store.remove_parts(self.connection, gone)
        self.note_foreseen(loaded, new.sums())
        self.look_for_duplicates(loaded, job)
        note_cap(loaded, job, plan, most)
        note_retirement(loaded, plan, self.now)
        note_window(loaded, job, self.now)
        note_pdf_files(loaded, job, self.base)
        loaded.notes += plan.notes
        loaded.notes += [NO_SOUND] if videos_seen else []
        loaded.notes += plan.advice
        return loaded

    def note_foreseen(self, loaded: Loaded, new: Foreseen) -> None:
        """Add what is estimated of the new rows to what was of earlier ones; nothing is known of a job that an older
        version loaded, so that none of it is told."""
        before = store.estimate_of(self.connection, loaded.job_id)
        if new.items and (loaded.created or before is not None):
            whole = new if before is None else before + new
            store.change_job(self.connection, loaded.job_id, {"estimate": whole.stored()})

    def look_for_duplicates(self, loaded: Loaded, job: JobSpec) -> None:
        """Among items whose names are complete; those with files are compared later."""
        if not job.deduplicate:
            if "deduplicate" in loaded.changed:
                sharing.forget(self.connection, loaded.job_id)
        else:
            loaded.duplicates = sharing.block(self.connection, loaded.job_id, takes=TAKES)

    def job_row(self, job: JobSpec, plan: Plan, endpoint: Endpoint) -> Loaded:
        """Find the job of this name or make it. Raises ChangedError where its identity differs."""
        values = self.settings_of(job)
        found = store.job_named(self.connection, job.name, simulated=endpoint.simulated)
        if found is not None:
            refuse_other_identity(job, found)
            refuse_other_folder(job, found, self.base, Path(str(values["media_root"])))
            refuse_other_currency(job, found)
            changed = changed_settings(job, found)
            if found.paused == "budget" and "budget" in changed:
                values |= {"paused": None, "pause_message": None}
            if found.currency is None:
                values["currency"] = plan.currency
            kept = self.keep_what_was_set(values, found)
            if found.region != endpoint.region:
                refuse_in_flight(job, found, store.open_calls(self.connection, found.id))
                values |= {"region": endpoint.region, "profile_id": self.profile_of(job, plan, endpoint)}
            store.change_job(self.connection, found.id, values)
            now = store.job_named(self.connection, job.name, simulated=endpoint.simulated) or found
            return Loaded(
                job_id=found.id,
                name=job.name,
                simulated=endpoint.simulated,
                changed=changed,
                notes=kept,
                cap=now.cap,
                concurrency=now.concurrency,
            )
        job_id = store.add_job(
            self.connection,
            values
            | {
                "name": job.name,
                "profile_id": self.profile_of(job, plan, endpoint),
                "provider": endpoint.provider,
                "region": endpoint.region,
                "model": job.model,
                "identity": job.identity(),
                "simulated": endpoint.simulated,
                "created_at": self.now,
                "currency": plan.currency,
                "expected_tokens": TOKENS_PER_ANSWER,
            },
        )
        return Loaded(
            job_id=job_id,
            name=job.name,
            simulated=endpoint.simulated,
            created=True,
            cap=None if job.budget is None else job.budget.max_cost,
            concurrency=job.limits.concurrency,
        )

    def profile_of(self, job: JobSpec, plan: Plan, endpoint: Endpoint) -> int:
        provider, region = endpoint.limited_as
        return store.profile(
            self.connection,
            provider=provider,
            region=region,
            model=job.model,
            key_env=" ".join(endpoint.key_env),
            limits=plan.model.limits,
        )

    def keep_what_was_set(self, values: dict[str, object], found: Record) -> list[str]:
        """Leave out of `values` what the file says as it did before: `set` may have changed the row since. Returns a
        sentence for each value of the row that isn't the file's."""
        before = self.settings_of(stored_spec(found.spec))
        kept: dict[str, tuple[object, object]] = {}
        for name in SETTABLE:
            told, stands = values[name], getattr(found, name)
            if told != before[name]:
                continue
            del values[name]
            if told != stands:
                kept[name] = stands, told
        return kept_notes(found, kept)

    def settings_of(self, job: JobSpec) -> dict[str, object]:
        """What may change while a job runs."""
        return {
            "spec": {**job.snapshot(), "base": str(self.base)},
            "media_root": str(media_root(job, self.base)),
            "priority": job.priority,
            "tags": list(job.tags),
            "window": None if job.window is None else job.window.model_dump(),
            "cap": None if job.budget is None else job.budget.max_cost,
            **{name: getattr(job.limits, name) for name in store.LIMIT_NAMES},
        }

    def add(
        self,
        loaded: Loaded,
        made: Sequence[NewItem],
        rows: Sequence[Row],
        earlier: Earlier,
        changed: list[str],
        replaced: list[int],
    ) -> list[NewItem]:
        """Add what is new of a batch, pass over what is known, note what has changed since it was called, and which
        items were replaced. Returns what was added."""
        known = store.items_named(self.connection, loaded.job_id, [item.custom_id for item in made])
        new: dict[str, NewItem] = {}
        for item, row in zip(made, rows, strict=True):
            before = known.get(item.custom_id)
            if item.custom_id in new or (before is not None and earlier.is_repeated(before.id)):
                raise bad_row(
                    row,
                    f"the id {clean(item.custom_id)!r} stands twice in the source",
                    "give every row an id of its own in the column `id`",
                )
            if before is None:
                new[item.custom_id] = item
            elif before.row_hash == item.row_hash or only_readable(before, item):
                loaded.unchanged += 1
            elif store.never_sent(self.connection, before):
                store.replace_item(self.connection, before, item)
                replaced.append(before.id)
                loaded.updated += 1
            else:
                changed.append(f"{clean(row.place)}: {difference(before, item)}" if len(changed) < SHOWN else "")
        store.add_items(self.connection, loaded.job_id, list(new.values()))
        loaded.added += len(new)
        return list(new.values())


def remembering(item: NewItem, videos: Videos) -> NewItem:
    """With what was seen of its videos; a part has that of the whole at the item that merges it."""
    return item if item.part_of is not None or not videos else replace(item, media=with_facts(item.media, videos))


def kept_notes(job: Record, kept: Mapping[str, tuple[object, object]]) -> list[str]:
    """What stands and what the file says, by column: a sentence for each, and how to follow the file."""
    if not kept:
        return []
    notes, words = [], []
    for name, (stands, told) in kept.items():
        key, currency = ("budget", job.currency) if name == "cap" else (name, None)
        notes.append(f"{key} is {said(stands, currency)}, set by hand; the job file says {said(told, currency)}")
        words.append(shlex.quote(f"{key}={said(told, currency)}"))
    simulated = " --simulated" if job.simulated else ""
    return [*notes, f"to follow the job file: batchrun set {job.name} {' '.join(words)}{simulated}"]


def said(value: object, currency: str | None) -> str:
    if isinstance(value, Decimal):
        return f"{money_text(value)} {currency}"
    return "none" if value is None else str(value)


def dearest(plan: Plan, most: Decimal, items: Sequence[NewItem]) -> Decimal | None:
    """The most that a call of these items can cost, if it is more than `most`; None where it isn't known."""
    bounds = {(item.input_bound, plan.output_bound(item.variables)) for item in items}
    costs = [plan.most(*bound) for bound in bounds]
    return None if None in costs else max(most, *(cost for cost in costs if cost is not None))


def refuse_other_identity(job: JobSpec, found: Record) -> None:
    differing = differences(found.identity, job.identity())
    if not differing:
        return
    lines = [f"  {name}: {shown(old)} → {shown(new)}" for name, old, new in differing]
    raise ChangedError(
        f"job {job.name!r} was loaded with another request, and its answers belong to that one:\n" + "\n".join(lines),
        code="job-changed",
        remedy=f"give the changed job a new name, such as {job.name}-2, or take the change back",
    )


def refuse_in_flight(job: JobSpec, found: Record, calls: int) -> None:
    """A call is booked where its job stands, so a job changes its mode between calls."""
    if calls:
        raise ChangedError(
            f"job {job.name!r} has {counted(calls, 'call')} in flight, so its mode can't be changed to {job.mode}",
            code="mode-in-flight",
            remedy=f"batchrun pause {job.name}, wait until none is in flight, load, and resume; "
            "batchrun doctor --mend gives up the calls of a process that died",
        )


def refuse_other_folder(job: JobSpec, found: Record, base: Path, root: Path) -> None:
    """The items of a job name their pictures relative to one folder. It may move together with the job file."""
    before, before_base = Path(found.media_root), Path(found.spec["base"])
    moved = os.path.relpath(root, base) == os.path.relpath(before, before_base) and not before.exists()
    if root != before and not moved:
        raise ChangedError(
            f"job {job.name!r} takes its inputs from {before}, the job file now from {root}",
            code="job-changed",
            remedy=f"give the job a new name, such as {job.name}-2",
        )


def refuse_other_currency(job: JobSpec, found: Record) -> None:
    """A cap and what was spent can only be compared in one currency."""
    if job.budget is not None and found.currency not in (None, job.budget.currency):
        raise ChangedError(
            f"job {job.name!r} has spent in {found.currency}, its budget is now in {job.budget.currency}",
            code="job-changed",
            remedy=f"give the job a new name, such as {job.name}-2, or delete `budget`",
        )


def shown(value: JsonValue, other: JsonValue = None) -> str:
    """A value for a message, from near where it begins to differ from `other`. The query of a URL may be a signature,
    so it isn't shown."""
    if value is None:
        return "nothing"
    text, against = without_queries(value), without_queries(other)
    pairs = enumerate(zip(text, against, strict=False))
    same = next((at for at, (one, two) in pairs if one != two), min(len(text), len(against)))
    return clean(text, 200) if same <= SAME else "…" + clean(text[same - SAME // 2 :], 200)


def without_queries(value: JsonValue) -> str:
    text = _USER.sub(r"\1…@", json.dumps(value, ensure_ascii=False))
    return _DATA.sub(r"\1…", _QUERY.sub(r"\1?…", text))


def changed_settings(job: JobSpec, found: Record) -> list[str]:
    """Names of the settings outside the identity that differ from those stored. `mode` speaks for `stream`, which
    follows it unless somebody writes it."""
    before = {key: value for key, value in found.spec.items() if key != "base"}
    after = job.snapshot()
    asked = set(job.identity()) | {"name", "inputs"}
    if before.get("mode") != after.get("mode"):
        asked.add("stream")
    return [
        key for key in sorted(before.keys() | after.keys()) if key not in asked and before.get(key) != after.get(key)
    ]


def difference(before: Record, item: NewItem) -> str:
    old_media, new_media = as_written(before.media), as_written(item.media)
    if old_media != new_media:
        return change("its picture", old_media, new_media)
    old, new = before.variables, item.variables
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(change(clean(name), old.get(name), new.get(name)) for name in names[:3])


def as_written(media: Sequence[Mapping[str, JsonValue]]) -> list[dict[str, JsonValue]]:
    """The references as rows make them; what was seen of files stands beside that."""
    return [{key: value for key, value in reference.items() if key not in ("mtime", FACTS)} for reference in media]


def change(name: str, old: JsonValue, new: JsonValue) -> str:
    if without_queries(old) != without_queries(new):
        return f"{name} was {shown(old, new)}, now {shown(new, old)}"
    if "data:image/" in without_queries(old):
        return f"{name} has other data or another query in its URL"
    return f"{name}: its query changed, in {shown(old)}"


def only_readable(before: Record, item: NewItem) -> bool:
    """Whether a row differs only in that its picture could not be read, then or now: its size wasn't known."""
    if dict(before.variables) != dict(item.variables) or len(before.media) != len(item.media):
        return False
    pairs = list(zip(as_written(before.media), as_written(item.media), strict=True))
    return all(old.get("size") == new.get("size") or "size" not in old or "size" not in new for old, new in pairs) and (
        [{**old, "size": 0} for old, _ in pairs] == [{**new, "size": 0} for _, new in pairs]
    )


def rows_changed(job: JobSpec, changed: Sequence[str]) -> ChangedError:
    lines = [f"  {line}" for line in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"  … and {len(changed) - SHOWN} more")
    return ChangedError(
        f"rows of job {job.name!r} that have changed since they were called: {len(changed):,}\n" + "\n".join(lines),
        code="rows-changed",
        remedy="give these rows other ids, or the job a new name; the answers that were bought stay as they are",
    )


def note_cap(loaded: Loaded, job: JobSpec, plan: Plan, one: Decimal | None) -> None:
    """Say when the budget, not the concurrency, will be what holds the job back; `one` call may cost that much."""
    if loaded.cap is None or not one:
        return
    together = int(loaded.cap // one)
    length = "max_tokens" if plan.written else "params.max_tokens"
    wanted = loaded.concurrency or DEFAULT_CONCURRENCY
    if together < min(wanted, loaded.added + loaded.unchanged):
        loaded.notes.append(
            f"the budget of {money_text(loaded.cap)} {plan.currency} lets {counted(together, 'call')} be in flight "
            f"at once (one may cost up to {money(one)} {plan.currency}); lower {length} or raise the budget for more"
        )


def money(amount: Decimal) -> str:
    return f"{amount.quantize(Decimal('0.0001'))}"


def note_window(loaded: Loaded, job: JobSpec, now: datetime) -> None:
    """Say when a job that would wait begins."""
    if job.window is None:
        return
    window = stored_window(job.window.model_dump())
    if window is not None and not window.is_open(now):
        opens = window.opens_at(now).astimezone(window.zone)
        loaded.notes.append(f"its window of {window} is closed until {opens:%Y-%m-%d %H:%M}; `run --now` doesn't wait")


def note_pdf_files(loaded: Loaded, job: JobSpec, base: Path) -> None:
    number = pdf_files(job, base)
    if number:
        left_out = "1 PDF file is" if number == 1 else f"{number:,} PDF files are"
        remedy = "save their pages as pictures first (pdftoppm -png does it)"
        loaded.notes.append(f"{left_out} left out: models don't read them; {remedy}")


def note_retirement(loaded: Loaded, plan: Plan, now: datetime) -> None:
    notice = plan.model.retirement_notice(now.date())
    if notice is not None:
        loaded.notes.append(notice)
