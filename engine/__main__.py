"""Run the command line: `rbc-engine`, and `python -m rbc_engine`."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line. Until a command says otherwise, Ctrl-C and SIGTERM end the program
    alike, with a line and no traceback; also while modules are imported.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from rbc_engine.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        print("rbc-engine: interrupted", file=sys.stderr)
        sys.exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
