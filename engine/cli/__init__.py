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
from rbc_engine.cli.terminal.stopping import end_on_second_signal
from rbc_engine.cli.terminal.streams import escape_unprintable
from rbc_engine.errors import RbcError, UsageError
from rbc_engine.naming import options_named

__all__ = ["app", "main"]

EXIT_NOTHING_DONE = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="rbc-engine",
    help="Find and classify red blood cells in microscope images of smears.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _named(context: typer.Context) -> None:
    """Find and classify red blood cells in microscope images of smears."""
    context.with_resource(options_named())


app.command(short_help="Analyse images and whole slides: tables and a report.")(run)
app.command(short_help="Analyse a camera's frames as they arrive.")(live)
app.command(short_help="Apply other thresholds or a caller to a finished run.")(recall)
app.command(short_help="Show what differs between two runs.")(compare)
app.command(short_help="Compile a pack for a device ahead of a run.")(build)
app.command(short_help="Prepare a pack for int8 and fp8, and test them.")(calibrate)
app.command(short_help="Measure the speed of the engine and its stages.")(bench)
app.add_typer(packs_app, name="packs")
app.command(short_help="Show which device, precision and decoders run here.")(doctor)
app.command(short_help="Render slides of red cells with known truth.")(synth)
app.add_typer(train_app, name="train")
app.command(short_help="Measure a pack on labelled smears.")(evaluate)
app.add_typer(
    reproduce_app, name="reproduce", short_help="Reproduce tables and figures of Qiu et al. 2019."
)


def main() -> None:
    """Run the command line; an error of rbc-engine becomes one line on stderr and an exit code."""
    escape_unprintable()
    with end_on_second_signal():
        try:
            app()
        except RbcError as error:
            print(f"rbc-engine: {error}", file=sys.stderr)
            sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_NOTHING_DONE)
