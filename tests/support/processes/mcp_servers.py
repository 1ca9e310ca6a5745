"""Small MCP servers for testing a client: `python mcp_servers.py KIND …`, over stdio or, with a port, HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.server import MCPServer

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202eevil"
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def make_server() -> MCPServer:
    """Create a server like one for Postgres, with a tool that returns the privileges of the connected role."""
    from mcp.server import MCPServer  # Its import takes most of a second, and most of the servers need none of it.

    server = MCPServer("database", version="1.2.3")

    @server.tool()
    def execute_sql(sql: str) -> str:
        return json.dumps({"sql": sql, "rows": [{"rights": "may only read"}]})

    return server


def database(rights: str) -> dict[str, Any]:
    """Return the responses of such a server."""
    is_refused = rights == "refused"
    text = f"permission denied for {os.environ.get('DSN', '')}" if is_refused else json.dumps([{"rights": rights}])
    return {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "database", "version": "1.2.3"},
        },
        "tools/list": {"tools": [{"name": "execute_sql", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": text}], "isError": is_refused},
    }


def speak_by_hand(answers: dict[str, Any]) -> None:
    """Answer requests line by line, with output that a client should survive."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answers.get(message["method"])
        body = {"result": result} if result else {"error": {"code": -32601, "message": HOSTILE}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}), flush=True)


def hostile() -> dict[str, Any]:
    """Return responses made to act on a terminal, and to fill it."""
    schema = {"type": "object"}
    tools = [{"name": f"{HOSTILE}{number}" + "x" * 500, "inputSchema": schema} for number in range(2_000)]
    known = {"name": "get_me", "inputSchema": schema, "description": HOSTILE}
    return {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": HOSTILE + "n" * 5_000, "version": HOSTILE},
            "instructions": HOSTILE * 1_000,
        },
        "tools/list": {"tools": [known, *tools], "nextCursor": "again"},
        "tools/call": {"content": [{"type": "text", "text": HOSTILE * 10_000}], "isError": True},
    }


def main(kind: str, *more: str) -> None:
    """Run one of the servers."""
    match kind:
        case "http":
            make_server().run(
                "streamable-http", host="127.0.0.1", port=int(more[0]), json_response=True, stateless_http=True
            )
        case "sdk":
            make_server().run()
        case "hostile":
            print(HOSTILE, file=sys.stderr)
            speak_by_hand(hostile())
        case "silent":
            signal.pause()
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", CHILD])
            Path(more[0]).write_text(f"{os.getpid()} {child.pid}")
            speak_by_hand(database("may only read"))
            signal.pause()
        case "leaving":
            child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            Path(more[0]).write_text(str(child.pid))
            speak_by_hand(database("may only read"))
        case _:
            speak_by_hand(database(kind))


if __name__ == "__main__":
    main(*sys.argv[1:])
