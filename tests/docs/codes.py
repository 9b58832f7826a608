"""The codes of all errors, as they stand in the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from batchrun.errors import ErrorKind

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "batchrun"


def codes() -> set[str]:
    """Of every error that batchrun raises or prints; kinds of failed attempts apart, and those of the simulator, which
    are a vendor's."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if "simulator" not in path.relative_to(PACKAGE).parts:
            found |= set(codes_of(ast.parse(path.read_text(encoding="utf-8"))))
    return found - kinds()


def kinds() -> set[str]:
    return {kind.value for kind in ErrorKind}


def codes_of(module: ast.Module) -> Iterator[str]:
    constants = {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        for given in given_codes(node):
            if isinstance(given, ast.Name):
                given = ast.Constant(constants.get(given.id))
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield given.value


def given_codes(node: ast.AST) -> Iterator[ast.expr]:
    """What a call gives as a code, or a function takes for one where none is given."""
    if isinstance(node, ast.Call):
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
        if isinstance(node.func, ast.Name) and node.func.id == "complain":
            yield node.args[1]
    elif isinstance(node, ast.FunctionDef):
        named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        yield from (default for argument, default in named if argument.arg == "code" and default is not None)
