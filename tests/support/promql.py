"""Evaluates the part of PromQL that the alerts use, over scrapes made by a test. `promql-parser` reads the expressions.

A range stands for all given scrapes, whatever its length: tests do not wait for minutes.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from promql_parser import parse, walk

from tests.support.metrics import Scrape

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
Value = float | Vector

COMPARISONS: dict[str, Callable[[float, float], bool]] = {"==": operator.eq, ">": operator.gt, "<": operator.lt}
AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max, "sum": sum}
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "Equal": lambda value, wanted: value == wanted,
    "NotEqual": lambda value, wanted: value != wanted,
    "Re": lambda value, wanted: re.fullmatch(wanted, value) is not None,
    "NotRe": lambda value, wanted: re.fullmatch(wanted, value) is None,
}


def names_in(expression: str) -> set[str]:
    """Return the names of all series that an expression asks for. Raises ValueError for an invalid expression."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if type(node).__name__ == "VectorSelector":
            found.add(node.name)
        elif type(node).__name__ == "MatrixSelector":
            found.add(node.vector_selector.name)

    walk(parse(expression), pre_visit=visit)
    return found


def holds(expression: str, scrapes: Sequence[Scrape]) -> bool:
    """Return whether an alert with this expression would be pending or firing at the last of these scrapes."""
    result = evaluate(parse(expression), scrapes)
    assert isinstance(result, dict), "The condition of an alert is a vector."
    return bool(result)


def evaluate(node: Any, scrapes: Sequence[Scrape]) -> Value:
    """Evaluate a parsed expression at the last of these scrapes."""
    match type(node).__name__:
        case "NumberLiteral":
            return float(node.val)
        case "ParenExpr":
            return evaluate(node.expr, scrapes)
        case "VectorSelector":
            return _select(node, scrapes[-1])
        case "Call":
            return _call(node, scrapes)
        case "AggregateExpr":
            return _aggregate(node, _vector(node.expr, scrapes))
        case "BinaryExpr":
            return _combine(_operator(node), _vector(node.lhs, scrapes), evaluate(node.rhs, scrapes))
        case other:
            raise NotImplementedError(other)


def _vector(node: Any, scrapes: Sequence[Scrape]) -> Vector:
    value = evaluate(node, scrapes)
    assert isinstance(value, dict)
    return value


def _select(node: Any, scrape: Scrape) -> Vector:
    wanted = [
        (MATCHES[str(matcher.op).rpartition(".")[2]], matcher.name, matcher.value) for matcher in node.matchers.matchers
    ]
    return {
        labels: value
        for (name, labels), value in scrape.samples.items()
        if name == node.name and all(matches(dict(labels).get(label, ""), text) for matches, label, text in wanted)
    }


def _call(node: Any, scrapes: Sequence[Scrape]) -> Vector:
    if node.func.name == "histogram_quantile":
        share, vector = node.args
        return _quantiles(share.val, _vector(vector, scrapes))
    selector = node.args[0].vector_selector
    first, last = _select(selector, scrapes[0]), _select(selector, scrapes[-1])
    seconds = scrapes[-1].at - scrapes[0].at
    divisor = {"increase": 1.0, "rate": seconds}[node.func.name]
    return {labels: (last[labels] - first[labels]) / divisor for labels in last.keys() & first.keys()}


def _quantiles(share: float, buckets: Vector) -> Vector:
    """As Prometheus does: within a bucket, linear between its bounds; in the last one, the highest bound."""
    numbers = sorted((float(dict(labels)["le"]), number) for labels, number in buckets.items())
    if not numbers or not numbers[-1][1]:
        return {}
    rank = share * numbers[-1][1]
    low, below = 0.0, 0.0
    for bound, number in numbers:
        if number >= rank:
            return {(): low if math.isinf(bound) else low + (bound - low) * (rank - below) / (number - below)}
        low, below = bound, number
    raise AssertionError("The last bucket has all.")


def _aggregate(node: Any, vector: Vector) -> Vector:
    kept = set(node.modifier.labels) if node.modifier else set()
    groups: dict[Labels, list[float]] = {}
    for labels, value in vector.items():
        groups.setdefault(tuple(pair for pair in labels if pair[0] in kept), []).append(value)
    return {labels: AGGREGATIONS[_operator(node)](values) for labels, values in groups.items()}


def _combine(symbol: str, left: Vector, right: Value) -> Vector:
    if symbol == "or":
        assert isinstance(right, dict)
        return {**right, **left}
    pairs = {
        labels: (value, right if isinstance(right, float) else right[labels])
        for labels, value in left.items()
        if isinstance(right, float) or labels in right
    }
    if symbol in COMPARISONS:
        return {labels: value for labels, (value, other) in pairs.items() if COMPARISONS[symbol](value, other)}
    assert symbol == "/"
    return {labels: value / other for labels, (value, other) in pairs.items()}


def _operator(node: Any) -> str:
    """Return an operator, which the parser shows only in its text."""
    return str(node.op)
