"""Analyse images and whole slides into tables: `rbc-engine run`."""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.exit_codes import exit_code
from rbc_engine.cli.terminal.stopping import stop_on_signal
from rbc_engine.cli.terminal.streams import print_json, printing
from rbc_engine.cli.terminal.summary import print_failures, print_run

if TYPE_CHECKING:
    from rbc_engine.runs.run_folder import RunProgress

__all__ = ["run"]


def run(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Images, whole slides, a folder of images (one slide), or a folder of folders "
            "(one slide each).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; created if missing.")],
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    overwrite: options.Overwrite = False,
    resume: options.Resume = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Run only the first N fields.")] = None,
    um_per_px: Annotated[
        float | None,
        typer.Option(help="Width of an image pixel in µm, the same for all images and slides."),
    ] = None,
    estimate_scale: options.EstimateScale = True,
    field_prior: options.FieldPrior = True,
    formats: options.Formats = "",
    lanes: options.Lanes = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find and classify the red cells of all images, and write tables, a report and run.json."""
    from rbc_engine.cli.terminal.compile_watch import CompileWatch
    from rbc_engine.cli.terminal.progress import ProgressBar
    from rbc_engine.runs.run_folder import run_folder

    stop = threading.Event()
    with (
        CompileWatch(quiet=quiet or as_json) as watch,
        ProgressBar(show=not (quiet or as_json)) as bar,
        ExitStack() as stack,
    ):

        def on_progress(progress: RunProgress) -> None:
            if progress.begins:
                # Until now there was nothing to finish: Ctrl-C ended the program.
                stack.enter_context(stop_on_signal(stop))
                for note in () if quiet else progress.notes:
                    print(f"rbc-engine: {note}", file=sys.stderr)
            bar.show(progress)

        summary = run_folder(
            inputs,
            out,
            pack=pack,
            device=device,
            precision=precision,
            lanes=lanes,
            resume=resume,
            overwrite=overwrite,
            limit=limit,
            um_per_px=um_per_px,
            estimate_scale=estimate_scale,
            field_prior=field_prior,
            formats=options.names(formats),
            stop=stop,
            on_progress=on_progress,
            watch=watch,
        )
    counts = summary.record.counts
    with printing():
        if as_json:
            print_json(summary.record.text())
        elif quiet:
            print_failures(summary)
        else:
            print_run(summary)
    raise typer.Exit(
        exit_code(
            done=counts.fields - counts.failed, failed=counts.failed, interrupted=summary.stopped
        )
    )
