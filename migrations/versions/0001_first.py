"""The first schema: jobs, items, attempts, answers, usage, prices, profiles, workers, audit."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_table(
        "prices",
        sa.Column("id", ID, primary_key=True),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("from_tokens", sa.BigInteger(), nullable=False),
        sa.Column("up_to", sa.BigInteger()),
        sa.Column("input", sa.BigInteger(), nullable=False),
        sa.Column("output", sa.BigInteger(), nullable=False),
        sa.Column("cached_input", sa.BigInteger()),
        sa.Column("cache_write", sa.BigInteger()),
        sa.Column("thinking_output", sa.BigInteger()),
        sa.Column("loaded_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("digest", name=op.f("prices_digest_key")),
    )
    op.create_table(
        "profiles",
        sa.Column("id", ID, primary_key=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("key_env", sa.Text(), nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_day", sa.BigInteger()),
        sa.Column("concurrency", sa.BigInteger()),
        sa.Column("next_slot_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("tokens_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("day", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("day_tokens", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("rate_factor", sa.Float(), nullable=False, server_default="1"),
        sa.Column("cut_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("window_calls", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("window_limited", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("window_down", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("failures_in_row", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("breaker_step", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("breaker_until", sa.BigInteger()),
        sa.Column("refused_in_row", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("paused", sa.Text()),
        sa.Column("pause_message", sa.Text()),
        sa.UniqueConstraint(
            "provider", "region", "model", "key_env", name=op.f("profiles_provider_region_model_key_env_key")
        ),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("pid_started", sa.Text()),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("ended_at", sa.BigInteger()),
    )
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("profile_id", ID, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.Column("media_root", sa.Text()),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("window", sa.JSON()),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.Text()),
        sa.Column("pause_message", sa.Text()),
        sa.Column("cap", sa.BigInteger()),
        sa.Column("currency", sa.Text()),
        sa.Column("reserved", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("spent", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("requests_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_minute", sa.BigInteger()),
        sa.Column("tokens_per_day", sa.BigInteger()),
        sa.Column("concurrency", sa.BigInteger()),
        sa.Column("next_slot_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("tokens_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("day", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("day_tokens", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("expected_tokens", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("calls_seen", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("tokens_seen", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("errors_in_row", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("error_in_row", sa.Text()),
        sa.ForeignKeyConstraint(["profile_id"], ["profiles.id"], name=op.f("jobs_profile_id_fkey")),
        sa.UniqueConstraint("name", "simulated", name=op.f("jobs_name_simulated_key")),
    )
    op.create_table(
        "items",
        sa.Column("id", ID, primary_key=True),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("custom_id", sa.Text(), nullable=False),
        sa.Column("row_hash", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text()),
        sa.Column("variables", sa.JSON(), nullable=False),
        sa.Column("media", sa.JSON(), nullable=False),
        sa.Column("input_bound", sa.BigInteger()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("waits_for", ID),
        sa.Column("fence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("owner", sa.Text()),
        sa.Column("next_at", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("free_since", sa.BigInteger()),
        sa.Column("free_tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("paid_tries", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("answer_id", sa.BigInteger()),
        sa.Column("error_kind", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.CheckConstraint(
            "state IN ('pending', 'blocked', 'claimed', 'waiting', 'done', 'truncated', 'failed', 'cancelled')",
            name=op.f("items_state_check"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("items_job_id_fkey")),
        sa.ForeignKeyConstraint(["owner"], ["workers.id"], name=op.f("items_owner_fkey")),
        sa.ForeignKeyConstraint(["waits_for"], ["items.id"], name=op.f("items_waits_for_fkey")),
        sa.UniqueConstraint("job_id", "custom_id", name=op.f("items_job_id_custom_id_key")),
    )
    op.create_index("items_claim", "items", ["job_id", "state", "next_at", "id"])
    op.create_index(
        "items_request_hash",
        "items",
        ["request_hash"],
        postgresql_where=sa.text("request_hash IS NOT NULL"),
        sqlite_where=sa.text("request_hash IS NOT NULL"),
    )
    op.create_index(
        "items_waits_for",
        "items",
        ["waits_for"],
        postgresql_where=sa.text("waits_for IS NOT NULL"),
        sqlite_where=sa.text("waits_for IS NOT NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", ID, primary_key=True),
        sa.Column("item_id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("profile_id", ID, nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger()),
        sa.Column("first_token_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("expected_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger()),
        sa.Column("http_status", sa.Integer()),
        sa.Column("error_kind", sa.Text()),
        sa.Column("vendor_code", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.CheckConstraint(
            "outcome IN ('open', 'complete', 'failed', 'unsent', 'lost')",
            name=op.f("attempts_outcome_check"),
        ),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("attempts_item_id_fkey")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("attempts_job_id_fkey")),
        sa.ForeignKeyConstraint(["profile_id"], ["profiles.id"], name=op.f("attempts_profile_id_fkey")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("attempts_worker_id_fkey")),
        sa.UniqueConstraint("item_id", "fence", name=op.f("attempts_item_id_fence_key")),
    )
    op.create_index(
        "attempts_open",
        "attempts",
        ["profile_id", "job_id"],
        postgresql_where=sa.text("outcome = 'open'"),
        sqlite_where=sa.text("outcome = 'open'"),
    )
    op.create_table(
        "answers",
        sa.Column("attempt_id", ID, primary_key=True, autoincrement=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("reasoning", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("parsed", sa.JSON()),
        sa.Column("tool_calls", sa.JSON()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("answers_attempt_id_fkey")),
    )
    op.create_table(
        "usage",
        sa.Column("attempt_id", ID, primary_key=True, autoincrement=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("cached_tokens", sa.BigInteger()),
        sa.Column("cache_write_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("reasoning_tokens", sa.BigInteger()),
        sa.Column("image_tokens", sa.BigInteger()),
        sa.Column("video_tokens", sa.BigInteger()),
        sa.Column("raw", sa.JSON()),
        sa.Column("price_id", ID),
        sa.Column("cost_low", sa.BigInteger()),
        sa.Column("cost_high", sa.BigInteger()),
        sa.Column("currency", sa.Text()),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("usage_attempt_id_fkey")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("usage_job_id_fkey")),
        sa.ForeignKeyConstraint(["price_id"], ["prices.id"], name=op.f("usage_price_id_fkey")),
    )
    op.create_index("usage_at", "usage", ["at"])
    op.create_index(
        "usage_inexact",
        "usage",
        ["job_id"],
        postgresql_where=sa.text("cost_high IS NULL OR cost_low <> cost_high"),
        sqlite_where=sa.text("cost_high IS NULL OR cost_low <> cost_high"),
    )
    op.create_index("usage_job", "usage", ["job_id"])


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("answers")
    op.drop_table("attempts")
    op.drop_table("items")
    op.drop_table("jobs")
    op.drop_table("workers")
    op.drop_table("profiles")
    op.drop_table("prices")
    op.drop_table("audit")
