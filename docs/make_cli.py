"""Writes the examples in docs/CLI.md: `python -m docs.make_cli` starts a stack, runs all commands of session-cli on a
terminal of 96 columns, and puts their output between the marks. Times, ids and keys are replaced by fixed ones, so that
diffs show real changes only."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from tests.support.clients.agents import Agent
from tests.support.processes.command_line import CommandLine, Environment
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import API_KEY, ROOT
from tests.support.torture.rig import new_rig

EXAMPLE_AGENT = ROOT / "examples" / "agents" / "compare_prices.py"
PAGE = Path(__file__).parent / "CLI.md"
BEGIN, END = "<!-- begin: python -m docs.make_cli -->\n", "<!-- end -->\n"
COLUMNS = 96
HOME = "/home/anna"
OLDER = "2 hours 10 minutes"
"""The age of the data. Ages are shown in whole hours, so this one stays the same during the run."""
BREAK = """
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'out of order'; END $$;
CREATE TRIGGER broken BEFORE INSERT ON memories FOR EACH ROW WHEN (new.key = 'invoice') EXECUTE FUNCTION broken()
"""
"""Makes some commands fail."""
EVENED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?[0-9]+[hl]"), ""),
    # A line that was overwritten, such as a finished progress bar.
    (re.compile(r"^[^\n]*\r\x1b\[2K", re.MULTILINE), ""),
    (re.compile(r"^(?:[^\n]*\n\r?\x1b\[1A\x1b\[2K)+", re.MULTILINE), ""),
    (re.compile(r"\r"), ""),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://127.0.0.1:8000"),
    (
        re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
        "01a203c5-8f3e-7d41-9b26-6c0e5a7d1f42",
    ),
    (re.compile(r"\b\d{2}:\d{2}:\d{2}\b(?!\.)"), "14:03:27"),
    (re.compile(r"\b20\d{2}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z"), "2026-11-22T14:03:27.518204Z"),
    (re.compile(r"srk_[A-Za-z0-9]{40}"), "srk_" + "n3w0kE7y" * 5),
    (re.compile(r"\b20\d{2}-\d{2}-\d{2}\b(?!T)"), "2026-11-22"),
    (re.compile(r"key_[0-9a-f]{12}"), "key_7b1e4c09d2f8"),
    (re.compile(r"(?<=Duration minutes  )[\d.]+"), "0.0"),
    (re.compile(r"(?<!\d)\d+ MB of"), "2 MB of"),
    (re.compile(r"(?<=access to )\S+(?= may connect)"), "/home/anna/session-relay/.data/postgres"),
    (re.compile(r"(?<!\d)\d+ busy"), "0 busy"),
    (re.compile(r"whsec_\S+"), "whsec_bmV3c2VjcmV0bmV3c2VjcmV0bmV3"),
    (re.compile(r"evt_[0-9a-f]{32}"), "evt_4f1c9d2e8a7b6053c1d2e3f4a5b6c7d8"),
    (re.compile(r"(?<=--after )\S+"), "17"),
    (re.compile(r"\(pid \d+\)"), "(pid 1)"),
    (re.compile(r"in use by .+"), "in use by session-relay api, session-relay worker."),
)
"""Patterns of variable output, with their replacements."""


class Sheet:
    """The examples, in order, as Markdown."""

    def __init__(self, cli: CommandLine) -> None:
        self.cli = cli
        self.parts: list[str] = []

    def title(self, text: str, said: str = "") -> None:
        """Begin a section."""
        self.parts.append(f"\n### {text}\n" + (f"\n{said}\n" if said else ""))

    def shown(self, line: str, *, typed: str = "", code: int = 0, environment: Environment | None = None) -> None:
        """Add the terminal output of a command line, including input typed at its prompt."""
        terminal = self.cli.terminal(*words_of(line), columns=COLUMNS, lines=500, environment=environment)
        if typed:
            terminal.wait_for("Key for" if typed == API_KEY else "[y/N]")
            terminal.type(f"{typed}\n")
        ended, text = terminal.end()
        self._add(line, text, ended, code)

    def watched(
        self, line: str, stack: Stack, *, until: str, command: tuple[str, str, dict[str, Any]], code: int = 130
    ) -> None:
        """Add the output of a command that follows events: sends a command, waits for its effect, presses Ctrl-C."""
        terminal = self.cli.terminal(*words_of(line), columns=COLUMNS, lines=500)
        terminal.wait_for("Ctrl-C")
        name, session_id, data = command
        stack.send(name, session_id, **data)
        terminal.wait_for(until)
        terminal.interrupt()
        ended, text = terminal.end()
        after = text.index("\n", text.rindex(until)) + 1
        self._add(line, f"{text[:after]}^C\n{text[after:]}", ended, code)

    def asked(self, line: str, agent: Agent, *, question: str, answer: str, output: dict[str, Any]) -> None:
        """Add the output of a command that waits for a task, whose agent asks a question."""
        terminal = self.cli.terminal(*words_of(line), columns=COLUMNS, lines=500)
        agent.perform(agent.claim(wait=30), "ask", question=question)
        terminal.wait_for("Answer: ")
        terminal.type(f"{answer}\n")
        agent.perform(agent.claim(wait=30), "complete", output=output)
        ended, text = terminal.end()
        self._add(line, text, ended, 0)

    def piped(self, line: str, *, code: int = 0) -> None:
        """Add the output of a shell command without a terminal, stderr last."""
        done = self.cli.shell(line)
        self._add(line, done.out + done.err, done.code, code)

    def _add(self, line: str, text: str, ended: int, code: int) -> None:
        if ended != code:
            raise SystemExit(f"{line!r} ended with {ended}: {text}")
        for pattern, stand_in in EVENED:
            text = pattern.sub(stand_in, text)
        text = text.replace(str(self.cli.folder), HOME)
        lines = "\n".join(part.rstrip() for part in text.strip("\n").split("\n"))
        self.parts.append(f"\n```console\n$ {line}\n{lines}\n```\n")


def words_of(line: str) -> list[str]:
    """Split a command line, without its first word `session-cli`."""
    program, *words = shlex.split(line)
    if program != "session-cli":
        raise ValueError(line)
    return words


def age(database_url: str, interval: str = OLDER) -> None:
    """Subtract an interval from all times in the database."""
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'timestamp with time zone'"
        )
        for table, column in cursor.fetchall():
            statement = sql.SQL("UPDATE {0} SET {1} = {1} - %s::interval WHERE {1} IS NOT NULL")
            cursor.execute(statement.format(sql.Identifier(table), sql.Identifier(column)), [interval])
    connection.close()


def fill(stack: Stack, database_url: str) -> None:
    """Create three sessions of different ages, an agent, and two dead letters."""
    stack.send("create_session", "release-1.4", title="Release 1.4", participants=["Ben", "Carla"])
    stack.send("store_memory", "release-1.4", key="date", type="decision", content="We release on Thursday.")
    stack.send("complete_session", "release-1.4")
    age(database_url, "3 days")
    stack.send("create_session", "garden", title="A garden for bees", participants=["Anna"])
    stack.send("conversation_chunk", "garden", chunk_id="c1", content="Anna: lavender needs a roof against the rain?")
    stack.send("pause_session", "garden")
    age(database_url, "1 day")
    stack.send(
        "create_session",
        "solar",
        title="Solar roof",
        participants=["Anna", "Ben", "Claude"],
        context="A roof of 40 m², facing south-west. To be done before winter.",
    )
    talk = [
        "Anna: Which panels fit a dark roof?\nClaude: Black panels do, and they cost little more today.",
        "Ben: The installer asks whether we want a battery, too.\nAnna: Not this year.",
    ]
    for number, text in enumerate(talk, 1):
        stack.send("conversation_chunk", "solar", chunk_id=f"walk-{number}", content=text)
    memories: list[dict[str, Any]] = [
        {"key": "panels", "type": "decision", "content": "Black panels, 24 of them.", "tags": ["roof"]},
        {"key": "battery", "type": "question", "content": "Does a battery pay off within ten years?"},
        {"key": "permit", "type": "action_item", "content": "Ask the town whether a permit is needed."}
        | {"due": "2027-03-01"},
    ]
    for memory in memories:
        stack.send("store_memory", "solar", **memory)
    tasks = {"prices": ("Compare the prices of three installers", 5), "yield": ("Estimate the yearly yield", 0)}
    for task_id, (description, priority) in tasks.items():
        stack.send(
            "delegate_task",
            "solar",
            task_id=task_id,
            description=description,
            priority=priority,
            task_type="research",
            agent_name="researcher",
        )
    for number in (22, 24):
        content = f"# Offer\n\n{number} panels.\n"
        stack.send("add_artifact", "solar", artifact_id="offer", name="Offer of ACME", content=content)
    stack.send("add_artifact", "solar", artifact_id="roof", name="Roof", type="data", content={"area": 40})
    stack.client.post(
        "/v1/agents", json={"name": "researcher", "type": "claude", "max_concurrent": 2}
    ).raise_for_status()
    execute(database_url, BREAK)
    for delivery_id in ("invoice-1", "invoice-2"):
        stack.post("store_memory", "solar", delivery_id=delivery_id, key="invoice", content=f"The bill: {delivery_id}")
    wait_for(lambda: len(stack.client.get("/v1/dead-letters").json()["items"]) == 2, what="dead")
    age(database_url)
    wait_for(lambda: not any(agent["online"] for agent in stack.client.get("/v1/agents").json()["items"]), what="away")


def execute(database_url: str, statement: str) -> None:
    """Execute one statement."""
    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def draw(sheet: Sheet, stack: Stack, database_url: str) -> None:
    """Run all commands, in the order of `session-cli --help`."""
    sheet.title("Sessions")
    sheet.shown("session-cli list")
    sheet.shown("session-cli list --status paused --limit 10")
    sheet.shown("session-cli show solar")
    sheet.shown("session-cli summary solar")
    sheet.shown('session-cli create attic --title "A room in the attic" --participants Anna,Ben')
    for name in ("pause", "resume", "complete"):
        sheet.shown(f"session-cli {name} attic")
    sheet.shown("session-cli delete solar", typed="n", code=1)
    sheet.shown("session-cli delete attic --yes")
    sheet.title("Writing")
    decided = '"A hybrid inverter" --type decision --rationale "Light in outages" --key inverter'
    sheet.shown(f"session-cli remember solar {decided}")
    sheet.shown('session-cli say solar "Shall we order this week?" --as Anna')
    agent = Agent(stack, "planner")
    sheet.asked(
        'session-cli delegate solar "Draw up a schedule" --agent planner --id schedule --wait',
        agent,
        question="From which day on?",
        answer="From Monday.",
        output={"text": "Monday: scaffold. Tuesday: panels.", "days": 2},
    )
    sheet.shown("session-cli task show solar prices")
    sheet.shown('session-cli delegate solar "Call the installer" --agent planner --id call')
    agent.perform(agent.claim(wait=10), "ask", question="Which number?")
    sheet.shown("session-cli task list --status input_required")
    sheet.shown('session-cli task answer solar call "The one on the offer."')
    sheet.shown('session-cli task cancel solar call --reason "Ben called"')
    sheet.title("Session contents")
    sheet.shown("session-cli search 'black panels' --limit 3")
    sheet.shown("session-cli search-conversations 'roof -lavender'")
    sheet.shown("session-cli search-memories panels --type decision --tags roof")
    sheet.shown("session-cli transcript solar")
    sheet.shown("session-cli activity --session solar --since 1d --limit 4")
    sheet.shown("session-cli memories solar")
    sheet.shown("session-cli memories solar --status open --due-before 2027-03-31")
    sheet.shown("session-cli list-tasks --agent researcher")
    sheet.shown("session-cli list-artifacts --session solar")
    sheet.shown("session-cli list-artifacts --session solar --artifact offer")
    sheet.shown("session-cli artifact solar offer")
    sheet.shown("session-cli artifact solar offer --revision 1")
    change = (
        "store_memory",
        "solar",
        {"key": "battery", "type": "question", "content": "A battery?", "tags": ["later"]},
    )
    sheet.watched("session-cli watch solar --last 3", stack, until='"battery".', command=change)
    sheet.title("Import and export")
    sheet.shown("session-cli export garden --format markdown")
    sheet.shown("session-cli export solar -o solar.json")
    sheet.shown("session-cli import solar.json")
    (sheet.cli.folder / "webhook.json").write_text('{"command": "resume_session", "session_id": "garden", "id": "w-1"}')
    sheet.shown("session-cli send webhook.json --wait 10 --json delivery_id,status,message")
    age(database_url)
    sheet.title("Relay")
    nobody = {"RELAY_URL": "", "API_KEY": ""}
    sheet.shown(f"session-cli login {stack.url}", typed=API_KEY, environment=nobody)
    sheet.parts[-1] = sheet.parts[-1].replace(stack.url, "http://127.0.0.1:8000")
    sheet.shown("session-cli logout", environment=nobody)
    sheet.shown("session-cli profile list", environment=nobody)
    sheet.shown(f"session-cli login {stack.url} --profile home", typed=API_KEY, environment=nobody)
    sheet.parts[-1] = sheet.parts[-1].replace(stack.url, "http://127.0.0.1:8000")
    sheet.shown("session-cli profile list", environment=nobody)
    sheet.shown("session-cli profile use home", environment=nobody)
    sheet.shown("session-cli whoami")
    sheet.piped("session-cli open solar")
    sheet.piped("session-cli api GET /v1/sessions/solar | jq -c .stats")
    sheet.shown("session-cli status")
    sheet.shown("session-cli agents")
    sheet.shown("session-cli agent register scout --type research --max-concurrent 2")
    shutil.copy(EXAMPLE_AGENT, sheet.cli.folder)
    prices = {"prices": {"ACME": 8900, "Sun & Sons": 9400}}
    task = {"task_id": "offers", "agent_name": "scout", "description": "Compare the offers", "input_data": prices}
    sheet.watched(
        f"session-cli agent run --agent scout -- ./{EXAMPLE_AGENT.name}",
        stack,
        until="1 file",
        command=("delegate_task", "solar", task),
        code=0,
    )
    sheet.cli.launch("list", code=4, environment={"API_KEY": "wrong"})
    wait_for(lambda: sheet.cli.launch("refusals").rows, what="noted")
    sheet.shown("session-cli refusals")
    sheet.shown("session-cli deliveries --session garden --limit 3")
    sheet.shown("session-cli dead-letters list")
    sheet.shown("session-cli dead-letters show invoice-1 --json source,reason,payload")
    execute(database_url, "DROP FUNCTION broken CASCADE")
    sheet.shown("session-cli dead-letters replay invoice-1")
    sheet.shown("session-cli dead-letters discard invoice-2", typed="y")
    sheet.shown("session-cli keys create phone --scope write --sessions 'walk-*'")
    age(database_url)
    sheet.shown("session-cli keys list")
    sheet.shown("session-cli keys revoke phone", typed="y")
    sheet.title("Integrations")
    with receiver() as port:
        sheet.watched(
            f"session-cli listen solar --forward-to http://127.0.0.1:{port}/hooks",
            stack,
            until="store_memory",
            command=("store_memory", "solar", {"key": "roof", "content": "40 m²"}),
        )
    sheet.parts[-1] = re.sub(r"127\.0\.0\.1:\d+/hooks", "127.0.0.1:3000/hooks", sheet.parts[-1])
    sheet.shown("session-cli trigger store_memory_decision --json command,status,message")
    sheet.title(
        "Operations",
        "These act on the servers directly: those of `DATABASE_URL` and `REDIS_URL`, or of the local stack.",
    )
    sheet.shown("session-cli db upgrade")
    sheet.shown("session-cli db check")
    sheet.shown("session-cli db backup relay.dump")
    sheet.shown("session-cli db restore relay.dump", code=1)
    sheet.piped("session-cli db reader --json role,tables")
    sheet.shown("session-cli doctor")
    sheet.title("Shell")
    sheet.piped("session-cli completion bash | head -3")
    sheet.title(
        "For scripts", "In a pipe, output is TSV with a header line, or JSON with `--json`; errors go to stderr."
    )
    sheet.piped("session-cli list --status active | cut -f 1-4")
    sheet.piped("session-cli list --json id,title")
    sheet.piped("session-cli show solar --json id,status,stats")
    sheet.piped("session-cli list-tasks --json id | jq -r '.[].id'")
    sheet.piped("session-cli show solr", code=3)
    sheet.piped("session-cli show solr --json", code=3)
    sheet.piped("session-cli delete solar", code=2)
    sheet.piped("session-cli keys list --backend json", code=2)


class _Accepting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def receiver() -> Iterator[int]:
    """A local receiver of webhooks. Yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepting)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def new_sheet() -> Iterator[tuple[Sheet, Stack, str]]:
    """Start a stack, fill it, and yield an empty sheet for it."""
    with tempfile.TemporaryDirectory(prefix="session-cli-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        home = folder / "home"
        home.mkdir()
        with new_rig(postgres_settings={}) as rig:
            fill(rig.stack, rig.postgres.url)
            relay = {"RELAY_URL": rig.stack.url, "API_KEY": API_KEY}
            servers = {"DATABASE_URL": rig.postgres.url, "REDIS_URL": rig.valkey.url}
            yield Sheet(CommandLine(home, **relay, **servers)), rig.stack, rig.postgres.url


def main() -> int:
    """Regenerate the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    with new_sheet() as (sheet, stack, database_url):
        draw(sheet, stack, database_url)
    PAGE.write_text(f"{before}{BEGIN}{''.join(sheet.parts)}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
