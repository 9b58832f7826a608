"""The tables. Money is exact, times are UTC, both integers in the database so that sums and comparisons are exact.

`usage` is the base of every cost report. Counters that can be derived are derived; the exceptions (`jobs.reserved`,
`jobs.spent`, the buckets) are changed in the transaction of the claim or the finish that they count.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect as SqlDialect
from sqlalchemy.types import TypeDecorator

SCHEMA = "0006"
"""The newest revision under migrations/versions; `database.require_schema` compares it with the database's own."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MONEY_DIGITS = 12
MOST_MONEY = Decimal(9_000_000)
"""Currency units; somewhat less than what 64 bits hold in units of 10⁻¹²."""
FACTS = "facts"
"""Key of a reference in `items.media`: what was seen of a local video, which is no part of what its row says."""
EXACT = Context(prec=80)
"""Wide enough that no conversion ever rounds, whatever context the caller has."""


class Money(TypeDecorator[Decimal]):
    """A Decimal kept as an integer of 10⁻¹² currency units. Refuses what isn't a whole number of them."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: SqlDialect) -> int | None:
        if value is None:
            return None
        scaled = EXACT.scaleb(value, MONEY_DIGITS)
        units = int(scaled)
        if units != scaled:
            raise ValueError(f"{value} is finer than 10⁻¹² and was not rounded where it was computed")
        if abs(units) >= 2**63:
            raise ValueError(f"{value} is more than an amount can be")
        return units

    def process_result_value(self, value: int | None, dialect: SqlDialect) -> Decimal | None:
        return None if value is None else EXACT.scaleb(Decimal(int(value)), -MONEY_DIGITS)


class Instant(TypeDecorator[datetime]):
    """An aware datetime kept as microseconds since 1970 in UTC, so that both databases compare and divide it alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: SqlDialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: SqlDialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


Record: TypeAlias = sa.Row[*tuple[Any, ...]]
"""A row of a result. Its columns are named by the tables here; their types are not known to a checker."""

Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def limit_columns() -> list[Column[object]]:
    """Limits of a profile or a job, and how much of them is used up. NULL is no limit."""
    return [
        Column("requests_per_minute", BigInteger),
        Column("tokens_per_minute", BigInteger),
        Column("tokens_per_day", BigInteger),
        Column("concurrency", BigInteger),
        Column("next_slot_at", Instant, nullable=False, server_default="0"),
        Column("tokens_at", Instant, nullable=False, server_default="0"),
        Column("day", Integer, nullable=False, server_default="0"),
        Column("day_tokens", BigInteger, nullable=False, server_default="0"),
    ]


profiles = Table(
    "profiles",
    metadata,
    Column("id", Id, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("key_env", Text, nullable=False),
    *limit_columns(),
    Column("rate_factor", Float, nullable=False, server_default="1"),
    Column("cut_at", Instant, nullable=False, server_default="0"),
    Column("window_calls", Integer, nullable=False, server_default="0"),
    Column("window_limited", Integer, nullable=False, server_default="0"),
    Column("window_down", Integer, nullable=False, server_default="0"),
    Column("failures_in_row", Integer, nullable=False, server_default="0"),
    Column("breaker_step", Integer, nullable=False, server_default="0"),
    Column("breaker_until", Instant),
    Column("refused_in_row", Integer, nullable=False, server_default="0"),
    Column("paused", Text),
    Column("pause_message", Text),
    sa.UniqueConstraint("provider", "region", "model", "key_env"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("profile_id", ForeignKey("profiles.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("spec", sa.JSON, nullable=False),
    Column("identity", sa.JSON, nullable=False),
    Column("media_root", Text),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("tags", sa.JSON, nullable=False),
    Column("window", sa.JSON),
    # What `estimate` said when the job was first run: items, tokens in and out, cost; for the report to compare with.
    Column("estimate", sa.JSON(none_as_null=True)),
    Column("simulated", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("paused", Text),
    Column("pause_message", Text),
    Column("cap", Money),
    Column("currency", Text),
    Column("reserved", Money, nullable=False, server_default="0"),
    Column("spent", Money, nullable=False, server_default="0"),
    *limit_columns(),
    Column("expected_tokens", BigInteger, nullable=False, server_default="0"),
    Column("calls_seen", BigInteger, nullable=False, server_default="0"),
    Column("tokens_seen", BigInteger, nullable=False, server_default="0"),
    Column("errors_in_row", Integer, nullable=False, server_default="0"),
    Column("error_in_row", Text),
    # A job that was tried in the simulator is another one than the job of that name which costs money.
    sa.UniqueConstraint("name", "simulated"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Text),
    Column("started_at", Instant, nullable=False),
    Column("beat", BigInteger, nullable=False, server_default="0"),
    # Seconds without a beat after which others take it for dead.
    Column("lease", Float, nullable=False, server_default="60"),
    Column("ended_at", Instant),
    # Jobs by id that its machine can't do, and why: no key, no folder, no such provider.
    Column("unable", sa.JSON(none_as_null=True)),
)

items = Table(
    "items",
    metadata,
    Column("id", Id, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("custom_id", Text, nullable=False),
    Column("row_hash", Text, nullable=False),
    Column("request_hash", Text),
    Column("variables", sa.JSON, nullable=False),
    Column("media", sa.JSON, nullable=False),
    Column("input_bound", BigInteger),
    Column("state", Text, nullable=False),
    # The first item with the same request, whose answer this one shares as soon as it is there.
    Column("waits_for", ForeignKey("items.id")),
    # The item that merges the answers of its parts, of which this is one; it is blocked until the last has ended.
    Column("part_of", BigInteger),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("owner", ForeignKey("workers.id")),
    Column("next_at", Instant, nullable=False, server_default="0"),
    Column("free_since", Instant),
    Column("free_tries", Integer, nullable=False, server_default="0"),
    Column("paid_tries", Integer, nullable=False, server_default="0"),
    Column("answer_id", BigInteger),
    Column("error_kind", Text),
    Column("error", Text),
    sa.UniqueConstraint("job_id", "custom_id"),
    sa.CheckConstraint(
        "state IN ('pending', 'blocked', 'claimed', 'waiting', 'done', 'truncated', 'failed', 'cancelled')",
        name="state",
    ),
    # The claim reads (job, state) in the order of (next_at, id); the counts of `status` read it alone.
    Index("items_claim", "job_id", "state", "next_at", "id"),
    Index("items_waits_for", "waits_for", postgresql_where=sa.text("waits_for IS NOT NULL"),
          sqlite_where=sa.text("waits_for IS NOT NULL")),
    Index("items_part_of", "part_of", postgresql_where=sa.text("part_of IS NOT NULL"),
          sqlite_where=sa.text("part_of IS NOT NULL")),
    # Done items whose answer doesn't fit the job's schema: few, and counted by `status`.
    Index("items_unfit", "job_id", postgresql_where=sa.text("state = 'done' AND error_kind IS NOT NULL"),
          sqlite_where=sa.text("state = 'done' AND error_kind IS NOT NULL")),
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("item_id", ForeignKey("items.id"), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("profile_id", ForeignKey("profiles.id"), nullable=False),
    Column("worker_id", ForeignKey("workers.id"), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("claimed_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("first_token_at", Instant),
    Column("ended_at", Instant),
    Column("expected_tokens", BigInteger, nullable=False),
    Column("reserved", Money),
    Column("http_status", Integer),
    Column("error_kind", Text),
    Column("vendor_code", Text),
    Column("error", Text),
    Column("request_id", Text),
    # What was done to the pictures before they were sent.
    Column("note", Text),
    sa.UniqueConstraint("item_id", "fence"),
    sa.CheckConstraint("outcome IN ('open', 'complete', 'failed', 'unsent', 'lost')", name="outcome"),
    Index("attempts_open", "profile_id", "job_id", postgresql_where=sa.text("outcome = 'open'"),
          sqlite_where=sa.text("outcome = 'open'")),
)  # fmt: skip

answers = Table(
    "answers",
    metadata,
    Column("attempt_id", ForeignKey("attempts.id"), primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("finish_reason", Text),
    Column("complete", Boolean, nullable=False),
    Column("parsed", sa.JSON(none_as_null=True)),
    Column("tool_calls", sa.JSON(none_as_null=True)),
    # The attempt whose text was sent along to be continued. `text` begins with that one's whole text and is an answer
    # by itself; what this attempt brought is the rest. Tokens and cost are those of this attempt alone.
    Column("continues", BigInteger),
    Index("answers_continues", "continues", postgresql_where=sa.text("continues IS NOT NULL"),
          sqlite_where=sa.text("continues IS NOT NULL")),
)  # fmt: skip

prices = Table(
    "prices",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("valid_from", Instant, nullable=False),
    Column("source", Text, nullable=False),
    Column("from_tokens", BigInteger, nullable=False),
    Column("up_to", BigInteger),
    Column("input", Money, nullable=False),
    Column("output", Money, nullable=False),
    Column("cached_input", Money),
    Column("cache_write", Money),
    Column("thinking_output", Money),
    Column("loaded_at", Instant, nullable=False),
)

usage = Table(
    "usage",
    metadata,
    Column("attempt_id", ForeignKey("attempts.id"), primary_key=True, autoincrement=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("input_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("image_tokens", BigInteger),
    Column("video_tokens", BigInteger),
    Column("raw", sa.JSON),
    Column("price_id", ForeignKey("prices.id")),
    Column("cost_low", Money),
    Column("cost_high", Money),
    Column("currency", Text),
    # Who made the cost exact that the call itself left open: `zero`, `high` or `bill`; NULL for all others.
    Column("settled", Text),
    Index("usage_job", "job_id"),
    Index("usage_at", "at"),
    # `status` shows both ends of what was spent; nearly all rows are exact, and stand in no index for that.
    Index(
        "usage_inexact",
        "job_id",
        postgresql_where=sa.text("cost_high IS NULL OR cost_low <> cost_high"),
        sqlite_where=sa.text("cost_high IS NULL OR cost_low <> cost_high"),
    ),
)

# Files in a vendor's temporary storage (contract 8.8): bound to the model and the account, gone after two days.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Id, primary_key=True),
    Column("profile_id", ForeignKey("profiles.id"), nullable=False),
    # A digest of the key that uploaded it, so that another account doesn't try to use it; never the key.
    Column("account", Text, nullable=False),
    # SHA-256 of the file's bytes.
    Column("digest", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    sa.UniqueConstraint("profile_id", "account", "digest"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", sa.JSON, nullable=False),
)
