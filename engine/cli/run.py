"""`rbc-engine run`: images and whole slides in, tables out."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.exit_codes import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_DONE,
    EXIT_SOME_FAILED,
)
from rbc_engine.cli.terminal.progress import RunProgress
from rbc_engine.cli.terminal.stopping import stop_on_signal
from rbc_engine.cli.terminal.summary import print_summary
from rbc_engine.errors import OutputError, UsageError
from rbc_engine.sinks.formats.table import FORMATS, check_formats

if TYPE_CHECKING:
    from rbc_engine.types.results import FieldResult


__all__ = ["run"]

_FAILURES_SHOWN = 10


def run(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Images, whole slides, a folder of images (one slide), or a folder of folders (one slide each).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it does not exist.")],
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
    formats: Annotated[
        str,
        typer.Option(
            help=f"Further outputs, separated by commas: {', '.join(FORMATS)}; '' for none."
        ),
    ] = "report",
    lanes: options.Lanes = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Finds the red cells of all images and writes regions.parquet, fields.csv, slides.csv and run.json."""
    started = time.perf_counter()
    options.check_um_per_px(um_per_px)
    if resume and overwrite:
        raise UsageError(
            "--resume keeps what is done in --out and --overwrite replaces it; leave one of them out"
        )
    from rbc_engine.cli.terminal.compile_watch import CompileWatch
    from rbc_engine.engine import Engine
    from rbc_engine.sinks.out_folder import refuse_filled, refuse_foreign, refuse_inputs
    from rbc_engine.sources.find import find_fields

    chosen = options.names(formats)
    check_formats(chosen)
    found = find_fields(inputs)
    refuse_inputs(out, inputs)
    if overwrite:
        refuse_foreign(out)
    elif not resume:
        refuse_filled(out)
    entries = found.entries[:limit]
    warnings = []
    if found.skipped:
        warnings.append(
            f"{found.skipped} files or folders were passed over: hidden, links, or no images"
        )
    if len(entries) < len(found.entries):
        warnings.append(
            f"--limit {limit}: {len(found.entries) - len(entries)} fields were left out"
        )
    with (
        CompileWatch(quiet=quiet or as_json) as watch,
        Engine.open(
            pack,
            device=device,
            precision=precision,
            lanes=lanes,
            estimate_scale=estimate_scale,
            field_prior=field_prior,
            watch=watch,
        ) as engine,
    ):
        # Half a second of imports, while the engine compiles its networks.
        from rbc_engine.runs.record import run_head
        from rbc_engine.runs.resume import fresh_plan, open_earlier, resume_plan
        from rbc_engine.runs.run import run_fields
        from rbc_engine.sinks.journal.run_journal import RunJournal, refuse_if_running
        from rbc_engine.sinks.output import RunOutput
        from rbc_engine.stats.counts import SlideTally

        tally = SlideTally()
        failures: list[str] = []
        if um_per_px is not None and engine.pack.manifest.detector.um_per_canvas_px is None:
            raise UsageError(
                f"--um-per-px {um_per_px} has no effect: pack {engine.pack.name} does not know its own scale; "
                f"leave it out"
            )
        settings = {
            "um_per_px": um_per_px,
            "estimate_scale": estimate_scale,
            "field_prior": engine.field_prior is not None,
            "limit": limit,
            "formats": chosen,
        }
        head = run_head(engine, settings=settings)
        with stop_on_signal() as stop, ExitStack() as stack:
            refuse_if_running(out)
            journal = open_earlier(out, engine.pack, head) if resume else None
            if journal is not None:
                stack.enter_context(journal)
                plan = resume_plan(entries, journal)
                if not quiet:
                    for note in plan.notes:
                        print(f"rbc-engine: {note}", file=sys.stderr)
            else:
                plan = fresh_plan(entries)
            output = stack.enter_context(
                RunOutput(out, engine.pack, formats=chosen, overwrite=overwrite or resume)
            )
            if journal is None:
                journal = stack.enter_context(
                    RunJournal.create(out, head, types=len(engine.pack.types))
                )
            progress = stack.enter_context(
                RunProgress(len(plan.entries), show=not (quiet or as_json))
            )

            def on_result(result: FieldResult, kept: bool) -> None:
                tally.add(result)
                if result.error is not None and len(failures) < _FAILURES_SHOWN:
                    failures.append(_failure(result.field, result.error))
                progress.add(result, kept=kept)

            try:
                summary = run_fields(
                    engine,
                    plan,
                    output,
                    journal,
                    pixel_um=um_per_px,
                    started=started,
                    settings=settings,
                    warnings=warnings,
                    stop=stop,
                    on_result=on_result,
                    on_tile=progress.add_tile,
                )
            except OutputError as error:
                if not journal.done:
                    raise
                raise OutputError(
                    f"{error}; the {journal.done} fields done until then are kept: the same command with --resume "
                    f"goes on from there"
                ) from error
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    elif not quiet:
        print_summary(tally, summary["warnings"], out, failures=failures, report="report" in chosen)
    raise typer.Exit(_exit_code(summary["counts"], interrupted=stop.is_set()))


def _exit_code(counts: dict[str, int], *, interrupted: bool) -> int:
    if interrupted:
        return EXIT_INTERRUPTED
    if counts["failed"] == counts["fields"]:
        return EXIT_NOTHING_DONE
    return EXIT_SOME_FAILED if counts["failed"] else EXIT_DONE


def _failure(field: str, error: str) -> str:
    """Most errors name their file themselves."""
    return error if error.startswith(field) else f"{field}: {error}"
