"""Runs the whole stack on this machine until Ctrl-C or SIGTERM, as `python -m local`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
    from local.stack.console import Console
    from local.stack.environment import read_env_file
    from local.stack.lifecycle import Stack
    from models.errors import RelayError
    from models.process.parent_death import exit_with_parent
    from models.settings import read_settings


def main() -> int:
    """Run the stack. Returns exit code 1 if it fails to start."""
    console = Console()
    try:
        exit_with_parent()
        environment = {**read_env_file(Path(".env")), **os.environ}
        stack = Stack(read_settings(environment), environment, console=console)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and has to stay so.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda _signal, _frame: stack.stop())
        stack.run()
    except RelayError as error:
        console.error(" ".join(part for part in (error.message, error.hint) if part))
        return 1
    except OSError as error:
        console.error(f"Cannot access {error.filename or 'a file'}: {error.strerror}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
