"""Fields of a multipart/form-data body, in their order (RFC 7578)."""

import re
from dataclasses import dataclass
from typing import Final

BOUNDARY: Final = re.compile(r'multipart/form-data;.*\bboundary=(?:"([^"]{1,70})"|([!-~]{1,70}))', re.IGNORECASE)
NAME: Final = re.compile(r'form-data;(?:.*;)?\s*name="([^"]*)"', re.IGNORECASE)
FILE_NAME: Final = re.compile(r'filename="([^"]*)"', re.IGNORECASE)


class MalformedForm(ValueError):
    """The body is no form, or one with a part that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FormField:
    name: str
    value: bytes
    is_file: bool
    content_type: str
    """As its part says; empty where it says nothing."""


def read_form(content_type: str, body: bytes) -> list[FormField]:
    """Raise `MalformedForm`."""
    match = BOUNDARY.search(content_type)
    if match is None:
        raise MalformedForm("the content type is not multipart/form-data with a boundary")
    boundary = (match[1] or match[2]).encode()
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if not parts or parts[-1].rstrip(b"\r\n") != b"--":
        raise MalformedForm("the form has no closing boundary")
    return [read_field(part) for part in parts[:-1]]


def read_field(part: bytes) -> FormField:
    head, blank, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, text = line.partition(":")
        headers[name.strip().lower()] = text.strip()
    disposition = headers.get("content-disposition", "")
    match = NAME.match(disposition)
    if not blank or match is None:
        raise MalformedForm("a part of the form has no name")
    return FormField(
        name=match[1],
        value=value,
        is_file=FILE_NAME.search(disposition) is not None,
        content_type=headers.get("content-type", ""),
    )
