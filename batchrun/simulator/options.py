"""What can be set when a simulator is started; the one place of all defaults."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Final

from batchrun.simulator.faults import FAULTS, FaultSpecError, parse_spec
from batchrun.simulator.keys import KEY_VARIABLE


class Bill(StrEnum):
    """What a call costs that broke before its end. Complete calls always cost the usage they told."""

    DELIVERED = "delivered"
    FULL = "full"
    COMPLETE_ONLY = "complete-only"
    PROMPT_ON_ERROR = "prompt-on-error"


def nonnegative(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1e9")
    return value


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return value


def fault_spec(text: str) -> str:
    try:
        parse_spec(text)
    except FaultSpecError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def says(text: str, **more: object) -> dict[str, object]:
    return {"help": text, **more}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Each field is an option of the command, with `_` written as `-`."""

    host: str = field(
        default="127.0.0.1",
        metadata=says("address to listen on; another one than loopback lets other machines in"),
    )
    port: int = field(default=0, metadata=says("port to listen on; 0 takes a free one", type=port))
    book: Path | None = field(
        default=None, metadata=says("append the bill book to this file, a line of JSON each", type=Path)
    )
    seed: int = field(default=0, metadata=says("another number gives other answers", type=int))
    ttft: float = field(
        default=0.3, metadata=says("seconds to the first token, give or take a quarter", type=nonnegative)
    )
    tokens_per_second: float = field(
        default=50.0, metadata=says("pace of one stream; 0 is as fast as possible", type=nonnegative)
    )
    chunk_tokens: int = field(default=3, metadata=says("tokens in one chunk of a stream", type=positive))
    limits: bool = field(default=True, metadata=says("enforce the rate limits"))
    rpm: int | None = field(
        default=None, metadata=says("requests per minute of every model, instead of its own", type=positive)
    )
    tpm: int | None = field(
        default=None, metadata=says("tokens per minute of every model, instead of its own", type=positive)
    )
    bill: Bill = field(
        default=Bill.DELIVERED,
        metadata=says(
            "what a call costs that broke: the tokens sent so far, the full answer, nothing, or the tokens "
            "sent so far and the input of a 5xx",
            type=Bill,
            choices=list(Bill),
        ),
    )
    fault: str = field(default="", metadata=says("fault spec for requests whose address has none", type=fault_spec))
    plain_timeout: float = field(
        default=180.0,
        metadata=says("seconds after which an answer without streaming is stopped", type=nonnegative),
    )
    upload_lifetime: float = field(
        default=172_800.0, metadata=says("seconds for which an uploaded file may be named in calls", type=nonnegative)
    )
    exit_on_stdin_eof: bool = field(
        default=False, metadata=says("stop when standard input closes, so as not to outlive the parent")
    )

    def arguments(self) -> list[str]:
        """The command line that gives these options again."""
        words: list[str] = []
        for option in fields(self):
            value = getattr(self, option.name)
            name = option.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            elif value is not None:
                words.append(f"--{name}={value}")
        return words


ABOUT: Final = """\
A local server that answers like Model Studio, in its OpenAI-compatible mode
(compat) and in DashScope's native protocol, like AceData's Kimi API, and like
Moonshot's own. It breaks on request and keeps a bill book. It prints its
addresses as one line of JSON.
"""

EPILOG: Final = f"""\
base URLs, with singapore, virginia or beijing as the region:
  /<region>/compatible-mode/v1    compat     POST .../chat/completions
  /beijing-batch/compatible-mode/v1          Batch Chat: held, plain, half the price
  /<region>/api/v1                native     POST .../services/aigc/text-generation/generation
                                                  .../services/aigc/multimodal-generation/generation
  /acedata/kimi                   AceData    POST .../chat/completions
  /moonshot/v1                    Moonshot   POST .../chat/completions
  /<region>/api/v1                uploads    GET .../uploads?action=getPolicy&model=...
with faults: /<region>/fault/<spec>/compatible-mode/v1 and so on
  example: /singapore/fault/429-every=20+usage=late/compatible-mode/v1
  --list-faults shows them all
pages: GET /book, GET /stats, GET /uploads, GET /healthz
keys: sk-sim-<region>, sk-sim-acedata and sk-sim-moonshot, or only the value of
  {KEY_VARIABLE} when the environment has it
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="batchrun simulate",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--list-faults", action="store_true", help="show the faults and stop")
    for option in fields(Options):
        settings = dict(option.metadata)
        explained = f"{settings.pop('help')} (default: {shown(option.default)})"
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(option.default, bool):
            made.add_argument(flag, action=argparse.BooleanOptionalAction, default=option.default, help=explained)
        else:
            made.add_argument(flag, default=option.default, help=explained, **settings)
    return made


def shown(default: object) -> str:
    match default:
        case None | "":
            return "none"
        case bool():
            return "yes" if default else "no"
    return str(default)


def fault_list() -> str:
    """The table of faults as text."""
    lines = []
    for name, kind in FAULTS.items():
        values = kind.values
        if isinstance(values, tuple):
            name += "=" + "|".join(values)
        elif values is not None:
            name += f"[={kind.default}]" if kind.default is not None else "=N"
        lines.append(f"{name:<28}  {kind.help}")
    return "\n".join(lines)


def parse_options(arguments: Sequence[str]) -> Options | None:
    """The options of a command line; None when only the list of faults was asked for."""
    values = vars(parser().parse_args(arguments))
    if values.pop("list_faults"):
        return None
    return Options(**values)
