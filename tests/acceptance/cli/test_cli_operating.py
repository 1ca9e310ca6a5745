"""session-cli for operators: dead letters, keys, and watching a journal as it grows."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest
from sqlalchemy import Engine

from tests.support.clients import dead_letters
from tests.support.processes.command_line import PROGRAM, CommandLine
from tests.support.processes.stack import Stack, new_id, wait_for

STYLE = re.compile(r"\x1b\[[0-9;]*m")


def keys_in(stack: Stack, session_id: str) -> list[str]:
    """Return the keys of the stored memories."""
    return sorted(memory["key"] for memory in stack.send("list_memories", session_id)["data"]["memories"])


class TestDeadLetters:
    def test_dead_letters_are_listed_and_shown_with_all_details(
        self, cli: CommandLine, stack: Stack, poisoned: str
    ) -> None:
        first, second = dead_letters.send_poison(stack, poisoned, 2)
        rows = cli.run("dead-letters", "list", "--session", poisoned).rows
        assert [row["delivery_id"] for row in rows] == [first, second]
        assert rows[0]["reason"].endswith("RaiseException P0001")
        here = ("dead-letters", "list", "--session", poisoned, "--json", "id,command,source")
        assert cli.run(*here, "--command", "store_memory", "--limit", "1").json == [
            {"id": first, "command": "store_memory", "source": "default"}
        ]
        assert cli.run(*here, "--command", "delete_memory").json == []
        shown = cli.run("dead-letters", "show", first, "--json", "payload,traceback").json
        assert shown["payload"] == {"key": "poison-0", "content": {"secret": 0}}
        assert shown["traceback"].startswith("Traceback")
        assert json.loads(cli.run("dead-letters", "show", first).rows[0]["payload"]) == shown["payload"]
        code, text = cli.terminal("dead-letters", "show", first, lines=200).end()
        drawn = STYLE.sub("", text)
        assert code == 0
        assert re.search(r"^Reason +\S.*RaiseException P0001", drawn, re.MULTILINE)
        assert "Traceback (most recent call last)" in drawn
        missing = cli.run("dead-letters", "show", "no-such-delivery", code=3)
        assert "no-such-delivery" in missing.err

    def test_a_dead_letter_is_replayed_once_its_cause_is_fixed(
        self, cli: CommandLine, stack: Stack, poisoned: str, engine: Engine
    ) -> None:
        delivery_id, _ = dead_letters.send_poison(stack, poisoned, 2)
        dead_letters.remove_cause(engine)
        done = cli.run("dead-letters", "replay", delivery_id)
        assert (done.err, done.rows) == ("Replayed 1 dead letter.\n", [{"replayed": "1"}])
        wait_for(lambda: dead_letters.status_of(stack, delivery_id) == "applied", what="applied")
        assert keys_in(stack, poisoned) == ["poison-0"]
        cli.run("dead-letters", "replay", delivery_id, code=3)

    def test_all_dead_letters_of_a_session_are_replayed(
        self, cli: CommandLine, stack: Stack, poisoned: str, engine: Engine
    ) -> None:
        dead_letters.send_poison(stack, poisoned, 3)
        dead_letters.remove_cause(engine)
        other = cli.run(
            "dead-letters", "replay", "--all", "--session", poisoned, "--command", "delete_memory", "--json"
        )
        assert other.json == {"replayed": 0}
        done = cli.run("dead-letters", "replay", "--all", "--session", poisoned, "--json")
        assert (done.err, done.json) == ("Replayed 3 dead letters.\n", {"replayed": 3})
        wait_for(lambda: not dead_letters.dead_letters_in(stack, poisoned), what="no dead letters left")
        assert keys_in(stack, poisoned) == ["poison-0", "poison-1", "poison-2"]

    @pytest.mark.parametrize("line", ["replay", "replay x --all", "discard", "show"])
    def test_replay_requires_an_id_or_all(self, cli: CommandLine, line: str) -> None:
        cli.run("dead-letters", *line.split(), code=2)

    @pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
    def test_discarding_asks_a_person_first(
        self, cli: CommandLine, stack: Stack, poisoned: str, answer: str, code: int
    ) -> None:
        [delivery_id] = dead_letters.send_poison(stack, poisoned, 1)
        terminal = cli.terminal("dead-letters", "discard", delivery_id, columns=300)
        shown = terminal.wait_for("[y/N]")
        assert f"Permanently discard {delivery_id} (store_memory on {poisoned} from default, accepted " in shown
        terminal.type(f"{answer}\n")
        ended, text = terminal.end()
        assert ended == code
        if code:
            assert "Nothing was changed." in text
            assert len(dead_letters.dead_letters_in(stack, poisoned)) == 1
        else:
            assert f"Discarded {delivery_id}." in text
            wait_for(lambda: not dead_letters.dead_letters_in(stack, poisoned), what="no dead letters left")

    def test_discarding_without_a_terminal_requires_yes_and_is_final(
        self, cli: CommandLine, stack: Stack, poisoned: str, engine: Engine
    ) -> None:
        [delivery_id] = dead_letters.send_poison(stack, poisoned, 1)
        refused = cli.run("dead-letters", "discard", delivery_id, input="y\n", code=2)
        assert "pass --yes" in refused.err
        assert len(dead_letters.dead_letters_in(stack, poisoned)) == 1
        dead_letters.remove_cause(engine)
        done = cli.run("dead-letters", "discard", delivery_id, "--yes", "--json")
        assert (done.err, done.json) == (f"Discarded {delivery_id}.\n", {"discarded": 1})
        wait_for(lambda: dead_letters.status_of(stack, delivery_id) == "rejected", what="discarded")
        assert keys_in(stack, poisoned) == []
        cli.run("dead-letters", "discard", delivery_id, "--yes", code=3)


class TestKeys:
    def test_a_key_is_shown_once_and_revoked_after_confirmation(self, cli: CommandLine, stack: Stack) -> None:
        name = new_id("phone")
        done = cli.run("keys", "create", name, "-s", "write", "--sessions", "walk-*")
        [made] = done.rows
        assert (made["name"], made["scopes"], made["sessions"]) == (name, '["write"]', "walk-*")
        assert re.fullmatch(r"srk_[A-Za-z0-9]{40}", made["key"])
        assert done.err == "Save the key now: it will not be shown again.\n"
        assert made["key"] not in cli.run("keys", "list").out + cli.shown("keys", "list", columns=200)
        for answer, code in (("n", 1), ("y", 0)):
            terminal = cli.terminal("keys", "revoke", name, columns=200)
            assert f"Permanently revoke {name} ({made['key_id']}: write)?" in terminal.wait_for("[y/N]")
            terminal.type(f"{answer}\n")
            assert terminal.end()[0] == code
            revoked = {key["key_id"]: key["revoked_at"] for key in cli.run("keys", "list", "--json").json}
            assert (revoked[made["key_id"]] is None) == bool(code)

    def test_a_second_key_of_a_sender_needs_an_option(self, cli: CommandLine) -> None:
        name = new_id("rotated")
        first = cli.run("keys", "create", name, "-s", "read", "--json").json
        refused = cli.run("keys", "create", name, "-s", "read", "--json", code=1)
        assert json.loads(refused.err)["error"]["message"]
        second = cli.run("keys", "create", name, "-s", "read", "--rotate", "--json").json
        assert first["key_id"] != second["key_id"]
        gone = cli.run("keys", "revoke", first["key_id"], "--yes", "--json").json
        assert gone["revoked"][0]["key_id"] == first["key_id"]
        left = [key["key_id"] for key in cli.run("keys", "list", "--json").json if not key["revoked_at"]]
        assert second["key_id"] in left
        cli.run("keys", "revoke", name, "--yes")

    def test_a_forbidden_command_names_the_missing_scope(self, cli: CommandLine) -> None:
        made = cli.run("keys", "create", new_id("reader"), "-s", "read", "--json").json
        reader = {"API_KEY": made["key"]}
        wait_for(lambda: "admin" in cli.run("keys", "list", code=4, environment=reader).err, what="key accepted")
        for line in ("dead-letters list", "refusals", "delete x --yes"):
            done = cli.run(*line.split(), code=3 if line.startswith("delete") else 4, environment=reader)
            assert done.out == ""


def test_watched_events_come_through_a_pipe_at_once(cli: CommandLine, stack: Stack) -> None:
    session_id = new_id("watched")
    stack.send("create_session", session_id, title="Watched")
    with subprocess.Popen(
        [PROGRAM, "watch", session_id, "--json", "event,status,message"],
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        try:
            assert watching.stdout is not None
            past = json.loads(watching.stdout.readline())
            stack.send("store_memory", session_id, key="k", content="x")
            stack.try_send("pause_session", session_id)
            stack.try_send("store_memory", session_id, key="l", content="x")
            events = [json.loads(watching.stdout.readline()) for _ in range(3)]
        finally:
            watching.send_signal(signal.SIGINT)
            rest, told = watching.communicate(timeout=60)
    assert past["event"] == "create_session"
    assert [(event["event"], event["status"]) for event in events] == [
        ("store_memory", "applied"),
        ("pause_session", "applied"),
        ("store_memory", "rejected"),
    ]
    assert events[0]["message"] == 'Stored the memory "k".'
    assert (watching.returncode, rest, told.strip()) == (130, "", "")
