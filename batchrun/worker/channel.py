"""Messages that are none: whoever can write to the broker could end every worker with one line of nonsense, as kombu
lets the error of reading it rise to the top. They are thrown away here."""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis

log = logging.getLogger("batchrun.worker")


class Channel(redis.Channel):
    """Of Redis. Kombu's types aren't public, hence Any."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("a message that isn't one was thrown away (%s)", type(error).__name__)
            raise Empty from error  # what is raised where there is no message


def throw_nonsense_away() -> None:
    """For every connection of this process. Celery takes the transport's class from the address alone, so that there
    is no other place to name a channel of one's own."""
    redis.Transport.Channel = Channel
