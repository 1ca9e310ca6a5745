"""The pages of keys stay short, however many keys were revoked."""

from __future__ import annotations

from typing import Any

from api.pages.admin.keys import REVOKED_SHOWN, choose


def key(name: str, revoked_at: str | None = None) -> dict[str, Any]:
    return {"name": name, "revoked_at": revoked_at}


def test_all_keys_in_use_come_first_and_then_the_latest_revoked_ones() -> None:
    revoked = [key(f"old-{n:05}", f"2026-11-22T14:{n // 60:02}:{n % 60:02}Z") for n in range(REVOKED_SHOWN * 3)]
    shown = choose([*revoked, key("b"), key("a")])
    assert [entry["name"] for entry in shown[:3]] == ["a", "b", revoked[-1]["name"]]
    assert shown[2:] == revoked[: -REVOKED_SHOWN - 1 : -1]
    assert len(shown) == REVOKED_SHOWN + 2
    assert choose([]) == []
