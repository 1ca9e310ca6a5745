"""`python -m local`: the whole stack on this machine, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from local.stack.console import Console
from local.stack.environment import read_env_file
from local.stack.lifecycle import Stack
from models.errors import RelayError
from models.process.parent_death import exit_with_parent
from models.settings import read_settings


def main() -> int:
    """Run the stack; the exit code is 1 when it could not be started."""
    console = Console()
    try:
        exit_with_parent()
        environment = {**read_env_file(Path(".env")), **os.environ}
        stack = Stack(read_settings(environment), environment, console=console)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup: the terminal's end is to be survived.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda _signal, _frame: stack.stop())
        stack.run()
    except RelayError as error:
        console.error(" ".join(part for part in (error.message, error.hint) if part))
        return 1
    except OSError as error:
        console.error(f"{error.filename or 'A file'} cannot be used: {error.strerror}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
