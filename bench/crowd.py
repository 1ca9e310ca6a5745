"""Holds many waiting claims, and listeners on quiet sessions, each on a connection of its own, until stdin is closed.

Runs as a separate process, so that it does not slow down the measuring one.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

QUIET_SESSIONS = 10
AT_ONCE = 50
"""The number of connections opened concurrently."""


class Crowd:
    """All waiters and listeners."""

    def __init__(self, port: int, keys: list[str]) -> None:
        self._port = port
        self._keys = keys
        self._opening = asyncio.Semaphore(AT_ONCE)
        self.waiting = 0
        self.listening = 0
        self.refused = 0

    async def wait(self, number: int) -> None:
        """Claim repeatedly, as an idle agent does."""
        body = b'{"agent_name":"idle-%d","wait":40,"task_types":["nothing"]}' % (number % 100)
        head = b"POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Type: application/json\r\n"
        request = (
            head % self._keys[number % len(self._keys)].encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        async with self._opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.waiting += 1
        while True:
            writer.write(request)
            status = (await reader.readuntil(b"\r\n\r\n"))[9:12]
            if status != b"204":
                self.refused += 1
                self.waiting -= 1
                return

    async def listen(self, number: int) -> None:
        """Follow the events of a session."""
        path = b"/v1/sessions/quiet-%d/events" % (number % QUIET_SESSIONS)
        head = b"GET %b HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nAccept: text/event-stream\r\n\r\n"
        async with self._opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(head % (path, self._keys[number % len(self._keys)].encode()))
            answer = await reader.readuntil(b"\r\n\r\n")
        if answer[9:12] != b"200":
            self.refused += 1
            return
        self.listening += 1
        while await reader.read(65_536):
            pass
        self.listening -= 1


async def gather(port: int, count: int, keys: list[str]) -> None:
    """Open all connections, print their number, and hold them until stdin is closed."""
    crowd = Crowd(port, keys)
    tasks = [asyncio.create_task(crowd.wait(number)) for number in range(count)]
    tasks += [asyncio.create_task(crowd.listen(number)) for number in range(count)]
    while crowd.waiting + crowd.listening + crowd.refused < 2 * count:  # noqa: ASYNC110 - the server sends no signal
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)  # Let the first polls finish.
    print(f"{crowd.waiting} claims and {crowd.listening} listeners ({crowd.refused} refused)", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(gather(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
