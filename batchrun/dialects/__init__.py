"""The wire forms: one file each, all of the same shape."""

from collections.abc import Callable, Mapping

from batchrun.dialects.base import Dialect
from batchrun.dialects.compat import Compat
from batchrun.dialects.native import Native

DIALECTS: Mapping[str, Callable[[str], Dialect]] = {"compat": Compat, "native": Native}
"""By the name that a catalogue entry gives; each is made with the name of an error table."""
