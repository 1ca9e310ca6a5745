"""The tests' evaluator of PromQL, on results that Prometheus gives."""

from __future__ import annotations

import pytest
from promql_parser import parse

from tests.support.metrics import Scrape
from tests.support.promql import evaluate, holds, names_in

FIRST = Scrape(
    100.0,
    {
        ("a", (("shard", "00"),)): 1.0,
        ("a", (("shard", "01"),)): 3.0,
        ("limit", ()): 10.0,
        ("c_total", (("cause", "rate"),)): 5.0,
        ("c_total", (("cause", "schema"),)): 7.0,
        ("s_bucket", (("le", "0.5"),)): 0.0,
        ("s_bucket", (("le", "1.0"),)): 0.0,
        ("s_bucket", (("le", "+Inf"),)): 0.0,
    },
)
LAST = Scrape(
    110.0,
    {
        **FIRST.samples,
        ("c_total", (("cause", "rate"),)): 25.0,
        ("s_bucket", (("le", "0.5"),)): 10.0,
        ("s_bucket", (("le", "1.0"),)): 90.0,
        ("s_bucket", (("le", "+Inf"),)): 100.0,
    },
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("max(a)", {(): 3}),
        ("min(a) + 0 == 1", NotImplementedError),
        ('a{shard!="00"}', {(("shard", "01"),): 3}),
        ("max by (shard) (a) > 2", {(("shard", "01"),): 3}),
        ("sum(max by (shard) (a)) / max(limit)", {(): 0.4}),
        ("max(absent_one) == 0", {}),
        ("max(absent_one) == 0 or max(a) == 3", {(): 3}),
        ('max(increase(c_total{cause="rate"}[5m]))', {(): 20}),
        ('sum(increase(c_total{cause=~"rate|schema"}[5m]))', {(): 20}),
        ('rate(c_total{cause="rate"}[5m])', {(("cause", "rate"),): 2}),
        ("histogram_quantile(0.5, max by (le) (rate(s_bucket[5m])))", {(): 0.75}),
        ("histogram_quantile(0.99, rate(s_bucket[5m]))", {(): 1.0}),
    ],
)
def test_an_expression_has_the_value_that_prometheus_gives(expression: str, expected: object) -> None:
    if expected is NotImplementedError:
        with pytest.raises((NotImplementedError, AssertionError)):
            evaluate(parse(expression), [FIRST, LAST])
    else:
        found = evaluate(parse(expression), [FIRST, LAST])
        assert found == (pytest.approx(expected) if expected else expected)


def test_a_condition_holds_if_any_series_is_left() -> None:
    assert holds("max(a) > 2", [FIRST])
    assert not holds("max(a) > 3", [FIRST])
    assert not holds("histogram_quantile(0.9, rate(s_bucket[5m])) > 0", [FIRST, FIRST._replace(at=110.0)])


def test_the_names_of_an_expression_are_found_and_an_invalid_one_is_refused() -> None:
    asked = "sum(max by (shard) (a)) / max(limit) > 0.5 or max(rate(c_total[5m])) > 1"
    assert names_in(asked) == {"a", "limit", "c_total"}
    with pytest.raises(ValueError, match=r"."):
        names_in("max(a >")
