"""What runs in the limited process for decoding, see `batchrun.media.child`. Nothing else imports the libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from batchrun.messages import JsonValue

Operation = Callable[[BinaryIO, BinaryIO | None, Mapping[str, JsonValue]], Mapping[str, JsonValue]]
"""(file to read, file to write, arguments) → values of the answer.

Raises MediaError for what is wrong with the file; its message has no subject and no full stop: "has no frames"."""

OPERATIONS: Mapping[str, str] = {
    "shrink": "batchrun.media.decoding.pictures",
    "probe": "batchrun.media.decoding.videos",
    "frames": "batchrun.media.decoding.videos",
}
"""The module of each operation; the function in it has its name. Imported when it is first asked for."""

SAVE_AGAIN = "Save the file again with another program, smaller if it is very large."
