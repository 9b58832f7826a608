"""The only reader of the environment. Read where a command starts, and passed on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from batchrun.errors import UsageError
from batchrun.showing import clean

LEASE = 60.0
SHORTEST_LEASE = 3.0
DEFAULT_DATABASE = Path(".batchrun") / "batchrun.db"
MASK = "***"
SHORTEST_SECRET = 8
"""Shorter values aren't searched for in texts: they would mask ordinary words."""
BROKERS = ("CELERY_BROKER_URL", "REDIS_URL")
TELLING = 12
"""Characters of a key by which it is found, where it is that long."""


_HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)


class Secret:
    """A key. Its text form is stars; `reveal` is called where the header is written and nowhere else."""

    __slots__ = ("_value", "name")

    def __init__(self, name: str, value: str) -> None:
        self.name = name
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.name}={MASK})"

    __str__ = __repr__


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says. Keys are looked up by name when a catalogue entry names them."""

    database_url: str = field(repr=False)
    catalogue: Path | None
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts that may be asked about media although they aren't public."""
    environment: Mapping[str, str] = field(repr=False)
    broker_url: str | None = field(default=None, repr=False)
    """Where hints to workers go; None without workers."""
    simulator_url: str | None = None
    """Address of a simulator that runs already; None to start one where a job names it."""
    lease: float = LEASE
    """Seconds of silence after which the others take a worker for dead."""
    media_roots: tuple[tuple[Path | None, Path], ...] = ()
    """Where folders of media lie on this machine: the folder of the machine that loaded a job, and the one here; None
    for whatever folder it was there. The first that fits counts."""

    def media_root(self, loaded: Path) -> Path:
        """The folder on this machine for the one that a job was loaded with."""
        for there, here in self.media_roots:
            if there is None:
                return here
            if loaded.is_relative_to(there):
                return here / loaded.relative_to(there)
        return loaded

    def key(self, names: Iterable[str]) -> Secret | None:
        """The first of these variables that is set and not empty. Raises UsageError where it can't be a key."""
        for name in names:
            value = self.environment.get(name, "")
            if value.strip():
                return Secret(name, checked(name, value.strip()))
        return None

    def secrets(self, names: Iterable[str]) -> tuple[str, ...]:
        """The values of these variables, for masking."""
        return tuple(value for name in names if len(value := self.environment.get(name, "").strip()) >= SHORTEST_SECRET)


def parse_media_roots(value: str) -> tuple[tuple[Path | None, Path], ...]:
    """`/here`, or `/there=/here` for some folders only, several with colons between. Raises UsageError."""
    found: list[tuple[Path | None, Path]] = []
    for part in filter(None, (part.strip() for part in value.split(os.pathsep))):
        there, equals, here = part.rpartition("=")
        pair = (Path(there) if equals else None, Path(here))
        if not all(folder is None or folder.is_absolute() for folder in pair):
            raise UsageError(
                f"BATCHRUN_MEDIA_ROOT has {part!r}, which isn't absolute",
                code="media-root-relative",
                remedy="write /folder/here, or /folder/where/it/was/loaded=/folder/here, with colons between several",
            )
        found.append(pair)
    return tuple(found)


def checked(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value or value[0] in "\"'":
        raise UsageError(
            f"{name} doesn't hold a key: it contains quotes, blanks, line breaks or other characters that no key has",
            code="key-malformed",
            remedy=f"set {name} to the bare key",
        )
    return value


def current_folder() -> Path:
    """Where the command was started. Raises UsageError where that folder is gone."""
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(
            f"the current folder can't be read: {error.strerror}; it may have been deleted",
            code="no-folder",
            remedy="go to a folder that exists and run the command again",
        ) from error


def read_settings(environment: Mapping[str, str], folder: Path) -> Settings:
    """Settings from `environment`; `folder` is where the default database stands. Raises UsageError."""
    url = environment.get("DATABASE_URL", "").strip()
    catalogue = environment.get("BATCHRUN_CATALOGUE", "").strip()
    return Settings(
        database_url=url or f"sqlite:///{quote(str(folder / DEFAULT_DATABASE))}",
        catalogue=Path(os.path.expanduser(catalogue)) if catalogue else None,
        allowed_hosts=read_allowed_hosts(environment.get("BATCHRUN_ALLOW_HOSTS", "")),
        media_roots=parse_media_roots(environment.get("BATCHRUN_MEDIA_ROOT", "")),
        broker_url=next((url for name in BROKERS if (url := environment.get(name, "").strip())), None),
        simulator_url=environment.get("BATCHRUN_SIMULATOR_URL", "").strip() or None,
        lease=read_lease(environment.get("BATCHRUN_LEASE", "").strip()),
        environment=environment,
    )


def read_lease(text: str) -> float:
    """Raises UsageError."""
    if not text:
        return LEASE
    seconds = int(text) if text.isascii() and text.isdigit() else 0
    if not SHORTEST_LEASE <= seconds <= 3_600:
        raise UsageError(
            f"BATCHRUN_LEASE is {clean(text, 40)!r}",
            code="lease",
            remedy=f"write whole seconds from {SHORTEST_LEASE:.0f} to 3600, or unset it",
        )
    return float(seconds)


def read_allowed_hosts(text: str) -> frozenset[str]:
    """`host` or `host:port`, separated by commas. Raises UsageError."""
    hosts = [host.strip().lower() for host in text.split(",") if host.strip()]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise UsageError(
                f"BATCHRUN_ALLOW_HOSTS holds {clean(host)!r}, which is no host",
                code="allow-hosts",
                remedy="write hosts with or without a port, separated by commas: files.example.lan,10.0.0.5:8080",
            )
    return frozenset(hosts)


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of `secrets`, nor a long beginning of one: a text may have been cut within it. Longest first:
    a key may begin like another one."""
    for secret in sorted(secrets, key=len, reverse=True):
        head = secret[:TELLING]
        while (start := text.find(head)) >= 0:
            length = len(head)
            while length < len(secret) and text[start + length : start + length + 1] == secret[length]:
                length += 1
            text = text[:start] + MASK + text[start + length :]
    return text
