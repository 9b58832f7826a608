"""The commands. `main` is what the shell starts; it turns every error into a message and an exit code.

Each command is a module with one name, `command`: a function as typer takes it, or a `typer.Typer` where there are
sub-commands. Its docstring is the help. A function may return its exit code as an int or raise `typer.Exit`; None is 0.
The module is imported only when the command is called, so it may import what it wants; for the list of commands the
table below is enough. `-v`, `-q` and `--no-color` are added to every command that has no option of that name; a
command that takes a `typer.Context` finds them, and the two consoles, by `render.screen(context)`.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from batchrun.cli.render import Switches
from batchrun.errors import EXIT_INTERRUPTED, EXIT_USAGE, BatchrunError, SpecError

EXIT_INTERNAL = 70
EXIT_PIPE = 141
"""What a shell reports for a program that was stopped because nobody reads what it writes."""

LINE_BREAK = re.compile(r"(?<!\n)\n(?!\n)")
COMPLETION = "_BATCHRUN_COMPLETE"
"""By this variable a shell asks what could stand next on its command line."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""So writing to standard output fails; errors of opening name a file besides."""

EPILOG = (
    "Exit codes: 0 done; 1 some items failed or were cut, or some files were not written; 2 wrong use or job file; "
    "3 stopped by a pause, the budget, an unpaid account or a refused key; 4 a service can't be reached; 70 a fault of "
    "batchrun itself; 130 interrupted; 141 the reader of a pipe went away."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    module: str
    group: str
    """The heading below which the help lists it."""
    summary: str
    passes_options: bool = False
    """Whether its options belong to another program."""


_RUN, _READ, _STEER, _KNOW, _SYSTEM = "Run", "Read", "Steer", "Look up", "System"
COMMANDS = (
    Entry(name="run", module="run", group=_RUN, summary="Load a job file, make its calls, print what they cost."),
    Entry(name="estimate", module="estimate", group=_RUN, summary="What it will cost and how long it will take."),
    Entry(name="load", module="load", group=_RUN, summary="Load a job file into the database, without any call."),
    Entry(name="submit", module="submit", group=_RUN, summary="Load a job file for workers on other machines."),
    Entry(name="worker", module="worker", group=_RUN, summary="Work on whatever is due, together with others."),
    Entry(name="demo", module="demo", group=_RUN, summary="Try everything with a simulated provider; costs nothing."),
    Entry(name="status", module="status", group=_READ, summary="How far the jobs are, and what holds them."),
    Entry(name="watch", module="watch", group=_READ, summary="Follow jobs until nothing is left to do."),
    Entry(name="results", module="results", group=_READ, summary="What came of each item of a job."),
    Entry(
        name="export", module="export", group=_READ, summary="Answers as JSONL, CSV, texts, subtitles or a batch file."
    ),
    Entry(name="report", module="report", group=_READ, summary="What it cost, by job, model, provider or day."),
    Entry(name="retry", module="retry", group=_STEER, summary="Let failed items be called again."),
    Entry(name="cancel", module="cancel", group=_STEER, summary="Cancel what has not ended; answers are kept."),
    Entry(name="pause", module="pause", group=_STEER, summary="No new calls of a job, until it is resumed."),
    Entry(name="resume", module="resume", group=_STEER, summary="Lift every pause of a job."),
    Entry(name="set", module="set", group=_STEER, summary="Change limits, budget or priority, also of a running job."),
    Entry(
        name="settle", module="settle", group=_STEER, summary="Make open costs exact: zero, high, or the vendor's bill."
    ),
    Entry(name="models", module="models", group=_KNOW, summary="Models of the catalogue, with limits and prices."),
    Entry(name="prices", module="prices", group=_KNOW, summary="Prices with their tiers, sources and dates."),
    Entry(name="schema", module="schema", group=_KNOW, summary="The JSON Schema of the job file, for editors."),
    Entry(name="doctor", module="doctor", group=_SYSTEM, summary="What stands in the way, and what mends it."),
    Entry(name="db", module="db", group=_SYSTEM, summary="Look at the database, or upgrade its schema."),
    Entry(
        name="simulate",
        module="simulate",
        group=_SYSTEM,
        summary="Serve the simulated provider until it is stopped.",
        passes_options=True,
    ),
)


class Commands(TyperGroup):
    """The group of all commands. Typer's own types of contexts aren't public, hence Any."""

    def get_params(self, ctx: Any) -> Any:
        found = super().get_params(ctx)
        for parameter in found:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return found

    def list_commands(self, ctx: object) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:
        """A stand-in that knows what the list of commands shows."""
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        return TyperCommand(entry.name, short_help=entry.summary, help=entry.summary, rich_help_panel=entry.group)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        self.commands = {entry.name: TyperCommand(entry.name) for entry in COMMANDS}  # where typer looks for near names
        name, _, rest = super().resolve_command(ctx, args)
        entry = next((entry for entry in COMMANDS if entry.name == name), None)
        return name, None if entry is None else self.load(entry, ctx), rest

    def load(self, entry: Entry, ctx: Any) -> Any:
        command: object = import_module(f"batchrun.cli.{entry.module}").command
        if isinstance(command, typer.Typer):
            app = command
        else:
            settings = {"allow_extra_args": True, "ignore_unknown_options": True} if entry.passes_options else {}
            app = typer.Typer(add_completion=False)
            app.command(entry.name, context_settings=settings, add_help_option=not entry.passes_options)(command)  # type: ignore[type-var]  # any function
        built: Any = typer.main.get_command(app)
        built.name = entry.name
        if not entry.passes_options:
            self.share_switches(built)
            make_readable(built, ctx)
        return built

    def share_switches(self, command: Any) -> None:
        taken = {option for parameter in command.params for option in parameter.opts}
        command.params += [
            parameter
            for parameter in self.params
            if parameter.name in ("verbose", "quiet", "no_color") and not taken.intersection(parameter.opts)
        ]
        for inner in getattr(command, "commands", {}).values():
            self.share_switches(inner)

    def invoke(self, ctx: Any) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            silence_stdout()
            raise typer.Exit(EXIT_PIPE) from None
        return code


def make_readable(command: Any, ctx: Any) -> None:
    """Help as it fits the terminal: typer keeps the line breaks of a docstring, and calls every switch a <bool>."""
    command.help = LINE_BREAK.sub(" ", inspect.cleandoc(command.help or ""))
    for parameter in (*command.params, command.get_help_option(ctx)):
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        make_readable(inner, ctx)


def silence_stdout() -> None:
    """Nobody reads it any more; the interpreter must not complain about that when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _set(context: typer.Context, parameter: Any, value: bool) -> None:
    if value:
        setattr(context.find_object(Switches), parameter.name, True)


def _print_version(value: bool) -> None:
    if value:
        from batchrun import __version__

        typer.echo(f"batchrun {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show where an error came from.", callback=_set, expose_value=False)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only data and errors.", callback=_set, expose_value=False)
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.", callback=_set, expose_value=False)
    ] = False,
) -> None:
    """Run a large batch of multimodal model calls, lose none of them, and know what it cost.

    First try: batchrun demo
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    open_missing_streams()
    sys.exit(carry_out(sys.argv[1:]))


def open_missing_streams() -> None:
    """A standard stream that the caller closed would be None, and the next file opened would get its number: what is
    printed would end up in the database."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def carry_out(arguments: Sequence[str]) -> int:
    """Carry out a command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # an old terminal can't show all of it
    switches = Switches()
    try:
        code = typer.main.get_command(app).main(
            list(arguments), prog_name="batchrun", standalone_mode=False, obj=switches
        )
        sys.stdout.flush()
    except BatchrunError as error:
        complain(switches, error.code, _lines_of(error), error.remedy)
        return error.exit_code
    except TyperException as error:
        complain(switches, "usage", [error.format_message()], _help_of(error))
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return EXIT_PIPE
    except (
        SystemExit
    ) as ended:  # so completion ends, and rich and typer when a pipe breaks; our commands raise typer.Exit
        if not ended.code or COMPLETION in os.environ:
            return int(ended.code or 0)
        silence_stdout()
        return EXIT_PIPE
    except OSError as error:
        if error.filename is not None or error.errno not in FULL:
            internal(switches, error)
            return EXIT_INTERNAL
        silence_stdout()
        remedy = "free some space, or send the output somewhere else"
        complain(switches, "not-writable", [f"the output can't be written: {error.strerror}"], remedy)
        return EXIT_USAGE
    except Exception as error:  # noqa: BLE001 - the end of a command
        internal(switches, error)
        return EXIT_INTERNAL
    return code if isinstance(code, int) else 0


def _lines_of(error: BatchrunError) -> list[str]:
    if not isinstance(error, SpecError):
        return [error.message]
    count = len(error.problems)
    lines = [f"{count} problem{'' if count == 1 else 's'}"]
    for problem in error.problems:
        lines += [f"  {problem.told}", *([f"    → {problem.remedy}"] if problem.remedy else [])]
    return lines


def _help_of(error: TyperException) -> str:
    context: typer.Context | None = getattr(error, "ctx", None)
    return f"see {context.command_path if context is not None else 'batchrun'} --help"


def complain(switches: Switches, code: str, lines: Sequence[str], remedy: str) -> None:
    """Write an error to standard error."""
    from rich.text import Text

    from batchrun.cli.render import screen_of
    from batchrun.output.visible import visible_lines

    err = screen_of(switches).err
    safe = [line for text in lines for line in visible_lines(text)]
    err.print(Text.assemble((f"error[{code}]: ", "bold red"), safe[0]), soft_wrap=True)
    for line in safe[1:]:
        err.print(Text(line), soft_wrap=True)
    if remedy:
        err.print(Text(f"  → {' '.join(visible_lines(remedy))}"), soft_wrap=True)


def internal(switches: Switches, error: Exception) -> None:
    """A fault of ours: one line, and where it happened if that was asked for."""
    message = f"{type(error).__name__}: {error}".splitlines()[0]
    remedy = "" if switches.verbose else "run it again with --verbose to see where, and report it"
    complain(switches, "internal", [message], remedy)
    if switches.verbose:
        import traceback

        sys.stderr.writelines(traceback.format_exception(error))
