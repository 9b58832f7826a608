"""`batchrun demo`: the main job on real pictures, with the simulator, in a folder of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from batchrun.cli.options import Workers

CAPTIONS_SHOWN = 3


def command(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the pictures, captions and the database go.")] = Path(
        "batchrun-demo"
    ),
    workers: Workers = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON document.")] = False,
) -> None:
    """Caption a dozen pictures through the bundled simulator: no key, no money.

    Everything goes into one folder: the job file and the pictures to play with, the captions, and a database of its
    own. Running it again does nothing twice; put pictures of your own into its folder and run it again.

    Example: batchrun demo
    """
    from batchrun.api import demo, opened
    from batchrun.cli.render import screen
    from batchrun.cli.summary import print_loaded, print_summary
    from batchrun.drain import Stop
    from batchrun.settings import DEFAULT_DATABASE

    silent = quiet or screen(context).quiet
    end = demo(
        folder,
        workers=workers,
        progress=not silent,
        on_loaded=(lambda _: None) if silent else print_loaded,
        stop=Stop(),
    )
    with opened(folder / DEFAULT_DATABASE) as engine:
        print_summary(engine, end, as_json=as_json)
    if not as_json:
        print_rest(folder)
    raise typer.Exit(end.exit_code)


def print_rest(folder: Path) -> None:
    """A few captions, the simulator's own bill, and where to look next."""
    from batchrun.demonstration import BOOK
    from batchrun.output.visible import amount_of, first_line
    from batchrun.simulator import read_book

    captions = sorted((folder / "captions").rglob("*.txt"))
    lines = [""]
    for caption in captions[:CAPTIONS_SHOWN]:
        text = first_line(caption.read_text(encoding="utf-8"), 96)
        lines.append(f"  {caption.relative_to(folder)}: {text}")
    book = folder / BOOK
    if book.exists():
        billed = sum((row.amount for row in read_book(book) if row.amount is not None), Decimal(0))
        lines += ["", f"the simulator's own bill book: {amount_of((billed, billed))} USD"]
    batchrun = "batchrun" if shutil.which("batchrun") else shlex.quote(str(Path(sys.argv[0]).resolve()))
    lines += [
        "",
        "next:",
        f"  cd {shlex.quote(os.path.relpath(folder))}",
        f"  {batchrun} report cost --by model",
        f"  {batchrun} results demo-captions",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
