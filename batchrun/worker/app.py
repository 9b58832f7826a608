"""How Celery is set up: wake-up messages only, nothing kept, nothing repeated."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from celery import Celery
from celery.exceptions import SecurityWarning
from kombu.exceptions import OperationalError

from batchrun.settings import Settings
from batchrun.worker.channel import throw_nonsense_away

__all__ = ["Own", "SecurityWarning", "configured", "hint"]

QUEUE = "batchrun"
TASK = "batchrun.drain"
LOCAL_BROKER = "redis://localhost:6379/0"
"""What plain `celery -A batchrun.worker` tries where the environment names none."""
SHUTDOWN = 15.0
"""Seconds that drains get to hand back what they hold after the second signal."""


@dataclass(slots=True, kw_only=True)
class Own:
    """What `batchrun worker` adds to the settings of the environment. Set before the pool is made, and inherited."""

    settings: Settings
    only: frozenset[int] | None = None
    """The ids of the only jobs; None for all."""
    grace: float = 120.0


def configured(settings: Settings) -> Celery:
    broker = settings.broker_url or LOCAL_BROKER
    throw_nonsense_away()
    app = Celery("batchrun", broker=broker, set_as_current=False)
    app.conf.update(
        batchrun=Own(settings=settings),
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=is_redis(broker),  # a busy worker must not take the hints that idle ones need
        worker_enable_prefetch_count_reduction=False,
        # Concerns late acknowledgement alone, which isn't used here; False would be warned about.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_send_task_events=True,
        worker_soft_shutdown_timeout=SHUTDOWN,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_heartbeat=20,
        task_queues={QUEUE: {"queue_arguments": {"x-queue-type": "classic"}}} if is_rabbitmq(broker) else None,
        broker_transport_options=transport_options(broker),
    )
    return app


def is_rabbitmq(broker: str) -> bool:
    """Its queue is a classic one, whatever the server's default is: Celery asks for what quorum queues don't have."""
    return urlsplit(broker).scheme.startswith(("amqp", "pyamqp"))


def is_redis(broker: str) -> bool:
    return urlsplit(broker).scheme.startswith(("redis", "rediss", "unix", "socket"))


def transport_options(broker: str) -> dict[str, object]:
    """Redis: a dead connection must be noticed, and a key prefix keeps other users of the database apart."""
    if not is_redis(broker):
        return {}
    return {
        "visibility_timeout": 3_600,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": "batchrun:",
    }


def hint(app: Celery, count: int = 1) -> None:
    """Tell workers to look, so many of their processes. Raises ConnectionError where the broker is away."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            for _ in range(count):
                app.send_task(TASK, connection=connection, retry=False)
    except (OperationalError, OSError) as error:
        raise ConnectionError(f"the broker doesn't answer: {error}") from error
