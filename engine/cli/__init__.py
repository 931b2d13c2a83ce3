"""Provide the command line: one file per command, which imports heavy modules only when it runs."""

from __future__ import annotations

import sys

import typer

from rbc_engine.cli.bench import bench
from rbc_engine.cli.build import build
from rbc_engine.cli.compare import compare
from rbc_engine.cli.doctor import doctor
from rbc_engine.cli.live import live
from rbc_engine.cli.models.calibrate import calibrate
from rbc_engine.cli.models.evaluate import evaluate
from rbc_engine.cli.models.reproduce import app as reproduce_app
from rbc_engine.cli.models.train import app as train_app
from rbc_engine.cli.packs import app as packs_app
from rbc_engine.cli.recall import recall
from rbc_engine.cli.run import run
from rbc_engine.cli.synth import synth
from rbc_engine.cli.terminal.streams import escape_unprintable
from rbc_engine.errors import RbcError, UsageError

__all__ = ["app", "main"]

EXIT_NOTHING_DONE = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="rbc-engine",
    help="Find and classify red blood cells in microscope images of smears.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(run)
app.command()(live)
app.command()(recall)
app.command()(compare)
app.command()(build)
app.command()(calibrate)
app.command()(bench)
app.add_typer(packs_app, name="packs")
app.command()(doctor)
app.command()(synth)
app.add_typer(train_app, name="train")
app.command()(evaluate)
app.add_typer(reproduce_app, name="reproduce")


def main() -> None:
    """Run the command line; an error of rbc-engine becomes one line on stderr and an exit code."""
    escape_unprintable()
    try:
        app()
    except RbcError as error:
        print(f"rbc-engine: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_NOTHING_DONE)
