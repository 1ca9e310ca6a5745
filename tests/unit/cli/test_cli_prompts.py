"""What session-cli asks, suggests, completes and shows in its help, without servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from cli.command_examples import EXAMPLES
from cli.commands.forwarding import receiver_url
from cli.commands.writing import PART_CHARACTERS, split
from cli.configuration import (
    choose_profile,
    find_login,
    forget_login,
    store_login,
    stored_login,
    stored_profiles,
)
from cli.main import ALIASES, MODULES, SECTIONS, cli
from cli.webhook_sender import WebhookSender, event_id, new_secret
from models.errors import SettingsError
from tests.support.inputs.command_lines import command_of
from tests.support.processes.cli_backends import on_store
from tests.support.processes.command_line import CommandLine
from tests.support.project import ROOT

HOME, WORK = "https://home.example", "https://work.example"


@pytest.fixture
def files(tmp_path: Path) -> CommandLine:
    """session-cli on an empty JSON store."""
    return on_store(tmp_path, backend="json")


def paths() -> Iterator[str]:
    """The path of each command and group."""
    for name in MODULES:
        yield name
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            yield from (f"{name} {member}" for member in command.commands)


class TestExamples:
    @pytest.mark.parametrize("path", ["", *paths()])
    def test_each_help_has_examples(self, files: CommandLine, path: str) -> None:
        shown = files.run(*path.split(), "--help").out
        assert EXAMPLES[path]
        for line in EXAMPLES[path]:
            assert f"\n  {line}\n" in shown

    def test_the_examples_have_the_name_that_the_program_was_called_by(self) -> None:
        context = click.Context(cli, info_name="session-relay")
        command = cli.get_command(context, "up")
        assert command
        assert command.get_help(click.Context(command, parent=context, info_name="up")).endswith("\n  session-relay up")

    @pytest.mark.parametrize("line", sorted({line for lines in EXAMPLES.values() for line in lines}))
    def test_each_example_can_be_parsed(self, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        line = re.sub(r" < \S+$", "", line.removeprefix('eval "$(').removesuffix(')"'))
        for part in line.split(" | "):
            if not part.startswith("session-cli "):
                continue
            path, command, words = command_of(part)
            context = click.Context(command, info_name=path, obj=SimpleNamespace(terminal=SimpleNamespace(fields=None)))
            try:
                command.parse_args(context, words)
            except click.BadParameter as error:
                assert "does not exist" in error.message

    def test_all_examples_belong_to_a_command(self) -> None:
        assert set(EXAMPLES) - {""} == set(paths())


class TestPrompts:
    def test_what_is_missing_is_asked_for(self, files: CommandLine) -> None:
        assert files.drawn("create", typed="garden\n").startswith("Session: ")
        shown = files.drawn("remember", "--key", "barrel", typed="garden\nOne barrel\n")
        assert shown.startswith("Session: Text: ")
        assert [row["content"] for row in files.run("memories", "garden").rows] == ["One barrel"]

    def test_an_answer_is_checked_as_an_argument_is(self, files: CommandLine) -> None:
        assert "Invalid id 'two words'" in files.drawn("show", typed="two words\n", code=2)
        assert "Missing argument 'ID'" in files.drawn("show", typed="\n", code=2)
        files.drawn("show", typed="", code=130)

    def test_programs_are_not_asked(self, files: CommandLine) -> None:
        done = files.run("show", input="garden\n", code=2)
        assert (done.out, "Missing argument 'ID'" in done.err) == ("", True)


@pytest.mark.parametrize("line", ["say garden", "remember garden", "search", "delegate garden"])
def test_a_text_that_is_not_utf_8_is_a_usage_error(files: CommandLine, line: str) -> None:
    files.run("create", "garden")
    done = files.run(*line.split(), "a\udcff", code=2)
    assert (done.out, done.err) == ("", "Error: An argument is not UTF-8.\n")


class TestCompletion:
    def completed(self, files: CommandLine, line: str) -> list[str]:
        asked = {"_SESSION_CLI_COMPLETE": "bash_complete", "COMP_WORDS": line}
        done = files.launch(environment={**asked, "COMP_CWORD": str(len(line.split(" ")) - 1)})
        assert done.err == ""
        return [found.partition(",")[2] for found in done.out.splitlines() if found]

    def test_a_store_completes_what_it_holds(self, files: CommandLine) -> None:
        for name in ("garden", "garage", "roof"):
            files.run("create", name)
        files.run("delegate", "roof", "x", "--id", "t-1", "--agent", "scout")
        assert sorted(self.completed(files, "session-cli show ga")) == ["garage", "garden"]
        assert self.completed(files, "session-cli delegate roof x --agent s") == ["scout"]
        for name in ("garden", "roof"):
            files.run("remember", name, "x", "--key", f"bed-{name}")
        assert self.completed(files, "session-cli remember garden x --key b") == ["bed-garden"]
        assert self.completed(files, "session-cli task show roof t") == ["t-1"]

    def test_what_a_shell_would_run_is_not_completed(self, files: CommandLine) -> None:
        files.run("create", "garden")
        for key in ("bed-ü:1", "bed$(id)", "bed`id`", "bed;id", "bed id", "bed*", "bed>x", "bed'", "bed&", "bed|id"):
            files.run("remember", "garden", "x", "--key", key)
        assert self.completed(files, "session-cli remember garden x --key bed") == ["bed-ü:1"]

    def test_without_a_backend_nothing_is_completed(self, files: CommandLine) -> None:
        for backend in ("--backend http", "--backend postgres"):
            assert self.completed(files, f"session-cli show {backend} g") == []


class TestProfiles:
    @pytest.fixture
    def environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        """Two logins, of which `work` is the current one."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("models.process.program.PROJECT", tmp_path)
        environment = {"XDG_CONFIG_HOME": str(tmp_path)}
        store_login(environment, url=HOME, key="home-key")
        store_login({**environment, "RELAY_PROFILE": "work"}, url=WORK, key="work-key")
        return environment

    def test_a_profile_goes_before_the_environment(self, environment: dict[str, str]) -> None:
        assert find_login(environment)[:2] == (WORK, "work-key")
        others = {**environment, "RELAY_URL": "https://x.example", "API_KEY": "x"}
        assert find_login(others).url == "https://x.example"
        assert find_login({**others, "RELAY_PROFILE": "default"})[:2] == (HOME, "home-key")
        choose_profile(environment, "default")
        assert find_login(environment)[:2] == (HOME, "home-key")
        assert [(item.name, item.is_current) for item in stored_profiles(environment)] == [
            ("default", True),
            ("work", False),
        ]

    def test_each_key_stays_with_its_relay(self, environment: dict[str, str]) -> None:
        assert find_login({**environment, "RELAY_URL": HOME}).key == "home-key"
        assert find_login({**environment, "RELAY_URL": WORK}).key == "work-key"
        with pytest.raises(SettingsError, match="no key for it"):
            find_login({**environment, "RELAY_URL": "https://x.example"})

    def test_a_login_again_replaces_only_its_own(self, environment: dict[str, str]) -> None:
        store_login(environment, url=WORK, key="new-key")
        assert find_login({**environment, "RELAY_PROFILE": "work"}).key == "new-key"
        assert find_login({**environment, "RELAY_PROFILE": "default"}).key == "home-key"

    def test_logins_are_forgotten_one_by_one(self, environment: dict[str, str]) -> None:
        path = forget_login(environment)
        assert path is not None
        assert path.exists()
        assert find_login(environment).url == HOME
        assert forget_login(environment) == path
        assert not path.exists()

    @pytest.mark.parametrize("act", [stored_login, forget_login])
    def test_an_unknown_profile_is_named(self, environment: dict[str, str], act: object) -> None:
        assert callable(act)
        with pytest.raises(SettingsError, match="No login is stored as 'none'"):
            act({**environment, "RELAY_PROFILE": "none"})

    def test_a_login_of_an_earlier_version_is_read(self, tmp_path: Path) -> None:
        environment = {"XDG_CONFIG_HOME": str(tmp_path)}
        path = store_login(environment, url=HOME, key="home-key")
        path.write_text(f'{{"url": "{HOME}", "key": "old-key"}}')
        assert find_login(environment)[:2] == (HOME, "old-key")


class TestWebhooks:
    def test_they_are_signed_as_standard_webhooks_are(self) -> None:
        sender = WebhookSender("http://127.0.0.1:1", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        signed = sender.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', at=1614265330)
        assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    def test_an_event_has_one_id_without_dots(self) -> None:
        event = {"cursor": "1.2"}
        assert event_id("a.b", event) == event_id("a.b", event)
        assert event_id("a.b", event) != event_id("a", event)
        assert re.fullmatch(r"evt_[0-9a-f]{32}", event_id("a.b", event))

    @pytest.mark.parametrize(
        ("given", "url"),
        [
            ("http://127.0.0.1:3000/hooks/", "http://127.0.0.1:3000/hooks/"),
            (" localhost:3000/a?u=http://x/y#z ", "http://localhost:3000/a?u=http://x/y"),
            ("https://Hooks.Example?Token=x", "https://hooks.example?Token=x"),
        ],
    )
    def test_the_path_and_query_of_a_receiver_stay_as_they_are(self, given: str, url: str) -> None:
        assert receiver_url(given) == url

    @pytest.mark.parametrize(
        "given", ["http://127.0.0.1\\@x.example/", "http://u@x.example/", "http:///x", "ftp://x", ""]
    )
    def test_a_receiver_needs_a_plain_host(self, given: str) -> None:
        with pytest.raises(SettingsError):
            receiver_url(given)

    @pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_€"])
    def test_an_invalid_secret_is_not_shown(self, secret: str) -> None:
        with pytest.raises(SettingsError) as raised:
            WebhookSender("http://127.0.0.1:1", secret)
        assert not secret or secret not in str(raised.value.body()).replace("whsec_ and", "")

    def test_a_new_secret_is_valid(self) -> None:
        assert WebhookSender("http://127.0.0.1:1", new_secret()).secret.startswith("whsec_")


def test_a_text_is_split_after_lines_and_otherwise_anywhere() -> None:
    for text in ("short", "a" * (2 * PART_CHARACTERS + 1), "line\n" * PART_CHARACTERS):
        parts = list(split(text))
        assert "".join(parts) == text
        assert max(map(len, parts)) <= PART_CHARACTERS
    assert [len(part) for part in split("x" * PART_CHARACTERS + "\n")] == [PART_CHARACTERS, 1]
    assert all(part.endswith("\n") for part in split("line\n" * PART_CHARACTERS))


def test_other_names_are_those_of_commands() -> None:
    assert set(ALIASES.values()) <= set(MODULES)
    assert not set(ALIASES) & {name for names in SECTIONS.values() for name in names}
