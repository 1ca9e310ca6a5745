"""Every regular expression of the product takes linear time for any text. New ones are found automatically: in calls of
`re`, in `Meta(pattern=...)`, and in routes."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from api.app import create_app
from models.settings import read_settings
from tests.support.inputs.pumping import find_superlinear
from tests.support.project import API_KEY, ROOT

ROOMS = ("models", "sessions", "relay", "worker", "api", "agent", "cli", "local", "docs")
METHODS = {"search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
ANYWHERE = "search"
"""The slowest method, assumed where the use of an expression is unknown."""


class Use(NamedTuple):
    """An expression, and the method that applies it."""

    where: str
    pattern: str | bytes
    flags: int
    method: str


def modules() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            if not name.endswith("__main__"):
                yield name.removesuffix(".__init__"), path


def uses_in(name: str, nodes: list[ast.AST], methods_of: dict[str, set[str]]) -> Iterator[Use]:
    """Return the expressions in a module: those in its source, and those created on import."""
    known, made = names_in(name, nodes), dict(patterns_in(name, nodes))
    targets = {
        id(node.value): target.id
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        where = f"{name}:{node.lineno}"
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            called = f"{node.func.value.id}.{called}"
        if called in {"re.compile", *(f"re.{method}" for method in METHODS)}:
            try:
                pattern = evaluate(node.args[0], known)
            except NameError:
                if called != "re.compile" or not made:
                    pytest.fail(f"{where}: make the regular expression a constant of the module")
                continue
            given = [*node.args[1 if called == "re.compile" else {"sub": 4, "split": 3}.get(called[3:], 2) :]]
            given += [keyword.value for keyword in node.keywords if keyword.arg == "flags"]
            flags = int(evaluate(given[0], known)) if given else 0
            made.pop(re.compile(pattern, flags), None)
            target = targets.get(id(node), "")
            key = f"{name}.{target}" if target.startswith("_") else target
            methods = methods_of.get(key, {ANYWHERE}) if called == "re.compile" else {called[3:]}
            for method in sorted(methods):
                yield Use(where, pattern, flags, method)
        for keyword in node.keywords:
            if called.endswith("Meta") and keyword.arg == "pattern":
                yield Use(where, evaluate(keyword.value, known), 0, ANYWHERE)
    for compiled, key in made.items():
        for method in sorted(methods_of.get(key, {ANYWHERE})):
            yield Use(name, compiled.pattern, compiled.flags & ~re.UNICODE, method)


def patterns_in(name: str, nodes: list[ast.AST]) -> Iterator[tuple[re.Pattern[Any], str]]:
    """Return the compiled expressions under a module's own names, also within tuples and tables; and those names."""
    aliases = (alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names)
    imported = {alias.asname or alias.name for alias in aliases}
    own = [(key, value) for key, value in vars(importlib.import_module(name)).items() if key not in imported]
    left = [(value, key) for key, value in own if isinstance(value, re.Pattern | tuple | list | dict)]
    while left:
        value, key = left.pop()
        if isinstance(value, re.Pattern):
            yield value, f"{name}.{key}" if key.startswith("_") else key
        elif isinstance(value, dict):
            left += [(item, key) for item in (*value.keys(), *value.values())]
        elif isinstance(value, tuple | list):
            left += [
                (item, field) for item, field in zip(value, getattr(value, "_fields", [key] * len(value)), strict=True)
            ]


def names_in(name: str, nodes: list[ast.AST]) -> dict[str, Any]:
    """Return the values of a module's names, including those that only a function imports."""
    known: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ROOMS:
            source = importlib.import_module(node.module)
            known |= {alias.asname or alias.name: getattr(source, alias.name, None) for alias in node.names}
    return known | vars(importlib.import_module(name))


def evaluate(node: ast.expr, known: dict[str, Any]) -> Any:
    """Evaluate an expression. Raises NameError for values known only at run time."""
    return eval(compile(ast.Expression(node), "", "eval"), known)


def methods_by_name(trees: dict[str, list[ast.AST]]) -> dict[str, set[str]]:
    """Return the methods called on compiled expressions, by name; private names with their module."""
    found: dict[str, set[str]] = {}
    for name, nodes in trees.items():
        for node in nodes:
            if isinstance(node, ast.Attribute) and node.attr in METHODS:
                owner = ast.unparse(node.value).rpartition(".")[2]
                found.setdefault(f"{name}.{owner}" if owner.startswith("_") else owner, set()).add(node.attr)
    return found


def collect() -> list[Use]:
    trees = {name: list(ast.walk(ast.parse(path.read_text()))) for name, path in modules()}
    methods = methods_by_name(trees)
    uses = [use for name, nodes in trees.items() for use in uses_in(name, nodes, methods)]
    app = create_app(read_settings({"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://x", "API_KEY": API_KEY}))
    for route in app.routes:
        expression: re.Pattern[str] = route.path_regex  # type: ignore[attr-defined]
        uses.append(Use(f"route {route.path}", expression.pattern, 0, "match"))  # type: ignore[attr-defined]
    return list({use[1:]: use for use in uses}.values())


def test_every_regular_expression_takes_linear_time() -> None:
    uses = collect()
    known = {use.where.partition(":")[0] for use in uses}
    assert {
        "models.decoding.strict",
        "models.commands.definitions",
        "cli.output.pager",
        "agent.execution.task_results",
        "route /v1/search",
    } <= known
    found = ((use, find_superlinear(re.compile(use.pattern, use.flags), use.method)) for use in uses)
    slow = [f"{use.where}: {use.method} {use.pattern!r}: {finding}" for use, finding in found if finding]
    assert not slow, "\n".join(slow)


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"(a+)+$", "search"),
        (r"(a|a)*b", "match"),
        (r"^(\w+\s?)*$", "fullmatch"),
        (r"\s+$", "search"),
        (r"\s+$", "sub"),
        (r"(.*?)\s*", "fullmatch"),
        (r"\d+ MB", "findall"),
        (r"\[[^\]]*\]", "sub"),
        (r"<.*>", "search"),
        (r"\$\{(\w+)(?::-([^}]*))?\}", "sub"),
        (r" +((?:\x1b\[[0-9;]*m)*)(?=\n)", "sub"),
        (r'"(?:[^"\\]|\\.)*"', "sub"),
        (rb'"(?:[^"\\]|\\.)*"', "sub"),
        (r" - at `(?:key in )?\$?\.?(.*)`$", "search"),
        (r"(?m)^\s*(\d{1,3}) ?%", "findall"),
    ],
)
def test_a_slow_expression_is_found(pattern: str | bytes, method: str) -> None:
    assert find_superlinear(re.compile(pattern), method) is not None


@pytest.mark.parametrize(
    ("pattern", "method"),
    [
        (r"\s+$", "match"),
        (r"[a-z0-9]+", "findall"),
        (r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$(?!\n)", "search"),
        (r'"(?:[^"\\]++|\\.)*+"?', "sub"),
        (r"(?<! ) ++(?=\n)", "sub"),
    ],
)
def test_a_linear_expression_is_not_reported(pattern: str, method: str) -> None:
    assert find_superlinear(re.compile(pattern), method) is None
