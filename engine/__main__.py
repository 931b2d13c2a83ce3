"""Run the command line: `python -m rbc_engine` is `rbc-engine`."""

from rbc_engine.cli import main

main()
