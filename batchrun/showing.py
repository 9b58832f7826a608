"""How things are shown in messages: texts that were found short, on one line, without anything that looks
like a key; numbers with the right word."""

from __future__ import annotations

import re

SECRET = re.compile(
    r"""(?<![A-Za-z0-9])(?:
        sk-(?:(?=[\w-]*\d)[\w-]{8,}|[\w-]{20,}|[A-Za-z]{15,}[\w-]*)  # the form most vendors give their keys
      | LTAI[A-Za-z0-9]{12,}                              # access key ids of the cloud behind Model Studio
      | (?:AKIA|ASIA)[A-Z0-9]{12,}                        # the same of Amazon
      | gh[opsur]_[A-Za-z0-9]{16,} | github_pat_\w{16,}   # tokens of GitHub
      | AIza[\w-]{20,}                                    # keys of Google
      | [sr]k_(?:live|test)_\w{8,}                        # keys of Stripe
      | (?i:bearer)\s+(?:(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{20,})
    )""",
    re.VERBOSE,
)
"""Text that looks like a credential. A digit is asked for in short ones, so that prose passes."""

MAX_SHOWN = 80


def counted(number: int, one: str, many: str = "") -> str:
    """`1 call`, `1,200 calls`; `many` where it isn't `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clean(text: str, limit: int = MAX_SHOWN) -> str:
    """`text` on one line, at most `limit` characters, control characters as escapes, keys hidden."""
    hidden = SECRET.sub("[hidden]", text[: 4 * limit])
    visible = "".join(char if char.isprintable() else _escape(char) for char in hidden)
    return visible if len(visible) <= limit and len(text) <= 4 * limit else visible[:limit] + "…"


def shown(value: object) -> str:
    """A value of a YAML or JSON file, named for a message."""
    if isinstance(value, str):
        return f"the text `{clean(value)}`" if value else "an empty text"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return clean(str(value))


def listing(names: list[str], limit: int = 20) -> str:
    """Names for a message, at most `limit` of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(clean(name, 60) for name in names[:limit]) + more


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
