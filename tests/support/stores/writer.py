"""A process that writes into a session of the JSON store: `python -m tests.support.stores.writer DATA_DIR NAME COUNT`.

Prints the number of each command once it is confirmed.
"""

from __future__ import annotations

import sys

from models.settings import read_settings
from sessions.files.backend import FilesBackend
from tests.support.stores.sending import SESSION


def write(backend: FilesBackend, name: str, number: int) -> dict[str, object]:
    """Send the command of this number."""
    data = {"key": f"{name} {number}", "content": {"number": number, "text": "word " * 20}}
    return backend.send("store_memory", data, session_id=SESSION, delivery_id=f"{name}-{number}")


def main() -> None:
    """Write the requested number of commands."""
    data_dir, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    backend = FilesBackend(read_settings({"DATA_DIR": data_dir}))
    for number in range(count):
        write(backend, name, number)
        print(number, flush=True)


if __name__ == "__main__":
    main()
