"""The registry of waiters by key."""

from __future__ import annotations

import asyncio

import pytest

from relay.notifications.waiters import Waiters


def test_waiters_are_found_under_their_key_the_longest_waiting_first() -> None:
    waiters: Waiters[str, object] = Waiters()
    first, second, other = object(), object(), object()
    with waiters.add("a", first), waiters.add("a", second), waiters.add("b", other):
        assert waiters.get("a") == (first, second)
        assert waiters.get("b") == (other,)
        assert waiters.get("c") == ()
        assert waiters.keys() == ["a", "b"]


def test_a_key_without_waiters_leaves_no_entry() -> None:
    waiters: Waiters[str, asyncio.Event] = Waiters()
    event = asyncio.Event()
    with waiters.add("a", asyncio.Event()):
        with pytest.raises(ZeroDivisionError), waiters.add("a", event), waiters.add("b", event):
            raise ZeroDivisionError
        assert "a" in waiters
        assert event not in waiters.get("a")
        assert waiters.keys() == ["a"]
    assert "a" not in waiters
    assert waiters.keys() == []


def test_waiters_may_come_and_go_while_others_are_woken() -> None:
    waiters: Waiters[str, int] = Waiters()
    with waiters.add("a", 1), waiters.add("a", 2):
        woken = []
        for one in waiters.get("a"):
            with waiters.add("a", one + 10):
                woken.append(one)
        assert woken == [1, 2]
