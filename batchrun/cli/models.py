"""`batchrun models`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from textwrap import fill
from typing import Annotated

import typer

from batchrun import api
from batchrun.catalogue import FEATURES
from batchrun.catalogue.lines import ModelLine
from batchrun.cli.known import CatalogueFile
from batchrun.cli.options import AsJson
from batchrun.cli.render import Column, Screen, count_text, screen
from batchrun.errors import UsageError
from batchrun.probing import Offer


def command(
    context: typer.Context,
    provider: Annotated[
        str | None, typer.Argument(metavar="[PROVIDER]", help="Such as model-studio/singapore, or model-studio.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Ask the provider's server which models it has. Nothing is bought.")
    ] = False,
    catalogue: CatalogueFile = None,
    wide: Annotated[
        bool, typer.Option("--wide", help="Longest answers, features and announced ends too; more than 80 columns.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Models that a job can name: what they take, how much fits, what they cost.

    Example: batchrun models model-studio/singapore

    Example: batchrun models --probe ollama
    """
    shell = screen(context)
    if probe:
        print_offer(shell, api.probe(asked(provider), catalogue=catalogue), as_json=as_json)
        return
    lines = api.models(provider, catalogue=catalogue)
    groups = [list(group) for _, group in groupby(lines, key=lambda line: line.provider)]
    if as_json:
        shell.json({"providers": [provider_record(group) for group in groups]})
        return
    for number, group in enumerate(groups):
        if number:
            shell.line()
        print_provider(shell, group, taken_over=provider is not None, wide=wide)


def asked(provider: str | None) -> str:
    """Raises UsageError where none is named."""
    if provider is None:
        raise UsageError(
            "name the provider that is to be asked", code="usage", remedy="such as: batchrun models --probe ollama"
        )
    return provider


def print_offer(shell: Screen, offer: Offer, *, as_json: bool) -> None:
    """What a server says that it has."""
    if as_json:
        shell.json(asdict(offer))
        return
    shell.line(f"{offer.provider}, as {offer.url} lists them", style="bold")
    columns = (Column(title="MODEL"), Column(title="CONTEXT", justify="right"), Column(title="IN THE CATALOGUE"))
    shell.table(
        columns,
        [(model.id, count_text(model.context), "yes" if model.listed else "no") for model in offer.models],
    )
    if not offer.models:
        shell.note("it has no models")
    elif not offer.open_models and not all(model.listed for model in offer.models):
        shell.note("to use one that isn't in the catalogue, add it to a file of your own (--catalogue)")


def print_provider(shell: Screen, lines: Sequence[ModelLine], *, taken_over: bool, wide: bool) -> None:
    """Models that are `taken_over` stand in the table of another provider already, where all are listed."""
    shell.line(heading(lines), style="bold")
    named = [line for line in lines if line.model is not None and (taken_over or line.own)]
    if named and wide:
        shell.table((*COLUMNS, *WIDE), [(*row(line), *wide_row(line)) for line in named])
    elif named:
        shell.table(COLUMNS, [row(line) for line in named])
    for notice in notices(named):
        shell.line(notice)


def notices(lines: Iterable[ModelLine]) -> Iterator[str]:
    """A paragraph for all models that end on the same day and have the same successor."""
    ended: dict[str, list[str]] = {}
    for line in lines:
        if line.notice is not None:
            ended.setdefault(line.notice.removeprefix(f"{line.model}: "), []).append(line.model or "")
    for end, models in ended.items():
        yield fill(
            f"{end}: {', '.join(models)}",
            width=79,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
            break_long_words=False,
        )


def heading(lines: Sequence[ModelLine]) -> str:
    what = ""
    if lines[0].simulates:
        what = f", simulates {lines[0].simulates}"
    elif lines[0].models_of:
        what = f", the models of {lines[0].models_of} in dialect {lines[0].dialect}"
    elif lines[0].batch_chat_of:
        what = f", mode: batch-chat of {lines[0].batch_chat_of}"
    return f"{lines[0].provider}{what}{', takes any model id' if lines[-1].model is None else ''}"


COLUMNS = (
    Column(title="MODEL"),
    Column(title="THINKING"),
    Column(title="TAKES"),
    Column(title="CONTEXT", justify="right"),
    Column(title="IN / OUT", justify="right"),
)
WIDE = (
    Column(title="OUTPUT", justify="right"),
    Column(title="FEATURES"),
    Column(title="JSON"),
    Column(title="ENDS"),
)
THINKING = {"never": "never", "always": "always", "switchable": "optional"}


def row(line: ModelLine) -> Sequence[str]:
    return (
        line.model or "",
        THINKING[line.thinking or "never"],
        takes(line),
        count_text(line.context),
        price_text(line),
    )


def wide_row(line: ModelLine) -> Sequence[str]:
    ends = "" if line.ends_on is None else line.ends_on.isoformat()
    structured = "?" if line.structured is None else line.structured.removeprefix("json_")
    return (count_text(line.max_output), features(line), structured, ends)


def takes(line: ModelLine) -> str:
    media = [name for name, taken in (("image", line.images), ("video", line.videos)) if taken]
    return " ".join(media) or "text"


def features(line: ModelLine) -> str:
    """What it is known to do, and with a question mark what isn't known."""
    known = [*(["tools"] if line.tools else []), *line.features]
    unknown = [f"{name}?" for name in FEATURES if name not in (*line.features, *line.lacks)]
    return " ".join([*known, *(["tools?"] if line.tools is None else []), *unknown]) or "none"


def price_text(line: ModelLine) -> str:
    """Of the first tier, per 1,000,000 tokens; `+` where longer requests cost more."""
    if line.input_price is None:
        return "unknown"
    return f"{line.input_price:f} / {line.output_price:f} {line.currency}{'+' if line.price_tiers > 1 else ' '}"


def provider_record(lines: Sequence[ModelLine]) -> dict[str, object]:
    return {
        "name": lines[0].provider,
        "dialect": lines[0].dialect,
        "simulates": lines[0].simulates,
        "models_of": lines[0].models_of,
        "batch_chat_of": lines[0].batch_chat_of,
        "open_models": lines[-1].model is None,
        "key_env": list(lines[0].key_env),
        "models": [model_record(line) for line in lines if line.model is not None],
    }


def model_record(line: ModelLine) -> dict[str, object]:
    values = asdict(line)
    return {"id": line.model} | {name: values[name] for name in values if name not in OF_THE_PROVIDER}


OF_THE_PROVIDER = ("provider", "dialect", "simulates", "models_of", "batch_chat_of", "key_env", "model", "own")
