"""What a worker logs: words for a person at a terminal, a JSON object on each line for everybody else.

Messages name jobs, counts, states and errors; no prompt, answer, key or medium is ever logged.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def in_json(logger: logging.Logger) -> None:
    """Where standard error is no terminal."""
    if not sys.stderr.isatty():
        for handler in logger.handlers:
            handler.setFormatter(JsonLines())
