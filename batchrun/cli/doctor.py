"""`batchrun doctor`."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated

import typer

from batchrun import api
from batchrun.cli.options import AsJson, CatalogueFile, Database
from batchrun.cli.render import Screen, screen
from batchrun.examining.checking import Finding, Level
from batchrun.output.visible import visible

STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.BAD: "bold red"}
INDENT = " " * 18


def command(
    context: typer.Context,
    mend: Annotated[bool, typer.Option("--mend", help="Mend what is wrong with rows; noted in the audit.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Don't try whether the providers can be reached.")] = False,
    catalogue: CatalogueFile = None,
    database: Database = None,
    as_json: AsJson = False,
) -> int:
    """Check this machine and the database: keys, hosts, disk, clock, workers, and whether rows and money agree.

    No call is made, no key leaves, nothing is changed without --mend, and no database is made. Exit code 1 if something
    is bad.

    Example: batchrun doctor --offline
    """
    shell = screen(context)
    made = api.doctor(mend=mend, offline=offline, database=database, catalogue=catalogue)
    if as_json:
        findings = [
            {"check": found.check, "level": found.level.value, "found": found.found, "remedy": found.remedy}
            for found in made.findings
        ]
        shell.json({"ok": made.exit_code == 0, "mended": list(made.mended), "findings": findings})
        return made.exit_code
    for found in made.findings:
        print_finding(shell, found)
    for what in made.mended:
        shell.line(f"mended: {what}")
    if mend and not made.mended:
        shell.note("nothing had to be mended")
    return made.exit_code


def print_finding(shell: Screen, found: Finding) -> None:
    from rich.text import Text

    first, *more = folded(found.found, shell)
    head = (f"{found.level.value:<6}", STYLES[found.level])
    shell.out.print(Text.assemble(head, f"{found.check:<12}", first), soft_wrap=True)
    if found.remedy:
        remedy, *rest = folded(found.remedy, shell, indent=2)
        more += [f"→ {remedy}", *(f"  {line}" for line in rest)]
    for line in more:
        shell.out.print(Text(INDENT + line), soft_wrap=True)


def folded(text: str, shell: Screen, *, indent: int = 0) -> list[str]:
    """Lines that fit beside the names of the checks; words, such as paths, are never broken."""
    width = max(40, shell.out.width) - len(INDENT) - indent
    return wrap(visible(text), width, break_on_hyphens=False, break_long_words=False) or [""]
