"""What `doctor` looks at outside of the database: versions, environment, keys, hosts, disk. Nothing leaves but
the beginning of a TLS connection, without any request in it."""

from __future__ import annotations

import platform
import shutil
import site
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from batchrun.catalogue import Catalogue, Endpoint, load_catalogue
from batchrun.errors import BatchrunError, UsageError
from batchrun.settings import Settings
from batchrun.showing import clean, listing
from batchrun.telemetry import is_asked_for, is_installed

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
OLDEST_SQLITE = (3, 35, 0)
"""The first one with RETURNING."""
HOST_SECONDS = 5.0
"""For each step to a host: name, connection, TLS."""
LITTLE_SPACE = 2 * 10**9
NO_SPACE = 100 * 10**6
"""Bytes free, below which there is a warning, and below which it is bad."""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Works, and may surprise."""
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str
    """Such as `keys`."""
    level: Level
    found: str
    remedy: str = ""
    """What to do, a command where there is one; empty where all is well."""


def ok(check: str, found: str) -> Finding:
    return Finding(check=check, level=Level.OK, found=found)


def warn(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.WARN, found=found, remedy=remedy)


def bad(check: str, found: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.BAD, found=found, remedy=remedy)


def bad_error(check: str, error: BatchrunError) -> Finding:
    return bad(check, clean(error.message, 300), error.remedy)


def check_versions(version: str) -> list[Finding]:
    """`version` is that of batchrun."""
    found = f"batchrun {version}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return [bad("versions", found, "use a Python with SQLite 3.35 or newer, or a PostgreSQL database")]
    return [ok("versions", found)]


def check_start_up(folders: Iterable[str] | None = None) -> list[Finding]:
    """Files that run code whenever Python starts: harmless ones belong to editable installs and test tools; a stolen
    package would sit there too."""
    chosen = [*site.getsitepackages(), site.getusersitepackages()] if folders is None else list(folders)
    hooks = sorted({path.name for folder in chosen for path in Path(folder).glob("*.pth") if runs_code(path)})
    if not hooks:
        return [ok("start-up", "no file runs code when Python starts")]
    return [ok("start-up", f"each start of Python runs {listing(hooks)}")]


def runs_code(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.startswith(("import ", "import\t")) for line in text.splitlines())


def check_proxies(environment: Mapping[str, str]) -> list[Finding]:
    """The names only: a proxy's address may hold a password."""
    names = sorted(name for name in environment if name.upper() in PROXIES and environment[name].strip())
    if not names:
        return []
    remedy = "a machine that reaches the provider only through a proxy can't make calls; else nothing is to be done"
    return [
        warn("environment", f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} set, and not used", remedy)
    ]


def check_telemetry(environment: Mapping[str, str]) -> list[Finding]:
    if not is_asked_for(environment) or is_installed():
        return []
    found = "OTEL_EXPORTER_OTLP_ENDPOINT names a collector, and the extra `otel` is missing: nothing is sent there"
    return [warn("environment", found, "pip install 'batchrun[otel]'")]


def check_catalogue(settings: Settings) -> tuple[list[Finding], Catalogue]:
    """The user's own catalogue file; where it can't be used, the bundled one goes on."""
    try:
        catalogue = load_catalogue(settings.catalogue)
    except BatchrunError as error:
        remedy = error.remedy or "mend the file, or unset BATCHRUN_CATALOGUE"
        return [bad("catalogue", clean(error.message, 300), remedy)], load_catalogue(None)
    where = "the bundled one" if settings.catalogue is None else clean(str(settings.catalogue), 200)
    return [ok("catalogue", f"{where}: {len(catalogue.endpoints)} endpoints")], catalogue


def check_key(endpoint: Endpoint, settings: Settings, *, needed: bool) -> Finding:
    """Which variable holds the key; never anything of the key. `needed` says that a job waits for it."""
    names = " or ".join(endpoint.key_env)
    try:
        key = settings.key(endpoint.key_env)
    except UsageError as error:
        return bad("keys", f"{endpoint.name}: {error.message}", error.remedy)
    if key is not None:
        return ok("keys", f"{endpoint.name}: {key.name} is set")
    make = bad if needed else warn
    return make("keys", f"{endpoint.name}: {names} isn't set", f"export {endpoint.key_env[-1]}=…")


def with_key(catalogue: Catalogue, settings: Settings) -> list[Endpoint]:
    """Real endpoints of which a key variable is set, well or badly."""
    return [
        endpoint
        for endpoint in catalogue.endpoints.values()
        if not endpoint.simulated and any(settings.environment.get(name, "").strip() for name in endpoint.key_env)
    ]


def check_hosts(endpoints: Sequence[Endpoint]) -> list[Finding]:
    """Whether the hosts can be reached, all at once. No request is sent."""
    addresses: dict[tuple[str, int, bool], list[str]] = {}
    for endpoint in endpoints:
        if endpoint.base_url:
            parts = urlsplit(endpoint.base_url)
            secure = parts.scheme == "https"
            port = parts.port or (443 if secure else 80)
            addresses.setdefault((parts.hostname or "", port, secure), []).append(endpoint.name)
    found: dict[tuple[str, int, bool], Finding] = {}

    def look(address: tuple[str, int, bool]) -> None:
        found[address] = check_host(*address, addresses[address])

    # Daemons, as nothing can end a look-up of a name that hangs, and the command must not wait for it.
    threads = [threading.Thread(target=look, args=(address,), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    last = time.monotonic() + 3 * HOST_SECONDS
    for thread in threads:
        thread.join(max(0.0, last - time.monotonic()))
    return [found.get(address) or silent(address, names) for address, names in addresses.items()]


def silent(address: tuple[str, int, bool], names: Sequence[str]) -> Finding:
    place = f"{address[0]}:{address[1]} ({listing(list(names))})"
    return bad("hosts", f"{place}: no answer within {3 * HOST_SECONDS:.0f} s", "check the network and its DNS")


def check_host(host: str, port: int, secure: bool, names: Sequence[str]) -> Finding:
    """Name, connection, TLS; the first that fails is told."""
    place = f"{host}:{port} ({listing(list(names))})"
    began = time.monotonic()
    try:
        connection = socket.create_connection((host, port), timeout=HOST_SECONDS)
    except socket.gaierror as error:
        return bad("hosts", f"{place}: the name isn't known: {error.strerror}", "check the network and its DNS")
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        return bad(
            "hosts", f"{place}: no connection: {reason}", "check the network, a firewall, the catalogue's base_url"
        )
    with connection:
        if secure:
            try:
                with ssl.create_default_context().wrap_socket(connection, server_hostname=host) as secured:
                    spoken = secured.version() or "TLS"
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                return bad("hosts", f"{place}: TLS fails: {clean(str(error), 200)}", TLS_REMEDY)
        else:
            spoken = "plain http"
    return ok("hosts", f"{place}: {spoken}, {1000 * (time.monotonic() - began):.0f} ms")


TLS_REMEDY = "check this machine's clock and its certificates (SSL_CERT_FILE); something on the way may read along"


def check_space(check: str, folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(existing(folder)).free
    except OSError as error:
        return warn(check, f"{clean(str(folder), 200)} can't be looked at: {error.strerror}", "check the folder")
    text = f"{free / 1e9:,.1f} GB free at {clean(str(folder), 200)}"
    if free < NO_SPACE:
        return bad(check, text, "free some space: answers that are paid for must be stored")
    return warn(check, text, "free some space before a large run") if free < LITTLE_SPACE else ok(check, text)


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def check_memory(events: Path = Path("/sys/fs/cgroup/memory.events")) -> list[Finding]:
    """Whether the system has killed processes of this container for want of memory. Only Linux tells."""
    try:
        lines = dict(line.split(maxsplit=1) for line in events.read_text(encoding="ascii").splitlines())
        killed = int(lines.get("oom_kill", "0"))
    except (OSError, ValueError):
        return []
    if not killed:
        return []
    found = f"the system has killed {killed:,} {'process' if killed == 1 else 'processes'} here for want of memory"
    return [warn("memory", found, "give it more memory, or lower limits.concurrency")]
