"""`rbc-engine run`: images in, tables out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli import options
from rbc_engine.cli.stopping import stop_on_signal
from rbc_engine.errors import UsageError
from rbc_engine.sinks.formats import FORMATS, check_formats

if TYPE_CHECKING:
    from rbc_engine.sinks.slides_csv import SlideTally
    from rbc_engine.types import FieldResult

__all__ = ["run"]

EXIT_DONE = 0
EXIT_NOTHING_DONE = 1
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130

_TABLE_ROWS = 40


def run(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Images, a folder of images (one slide), or a folder of folders (one slide each).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it does not exist.")],
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    overwrite: options.Overwrite = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Run only the first N fields.")] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="Width of an image pixel in µm, the same for all images.")
    ] = None,
    formats: Annotated[
        str, typer.Option(help=f"Further outputs, separated by commas: {', '.join(FORMATS)}.")
    ] = "",
    lanes: options.Lanes = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Finds the red cells of all images and writes regions.parquet, fields.csv, slides.csv and run.json."""
    started = time.perf_counter()
    options.check_um_per_px(um_per_px)
    from rbc_engine.cli.watch import CompileWatch
    from rbc_engine.engine import Engine
    from rbc_engine.sources.folder import find_fields

    chosen = [name for name in (part.strip() for part in formats.split(",")) if name]
    check_formats(chosen)
    found = find_fields(inputs)
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
        Engine.open(pack, device=device, precision=precision, lanes=lanes, watch=watch) as engine,
    ):
        # Half a second of imports, while the engine compiles its networks.
        from rbc_engine.run import run_fields
        from rbc_engine.sinks.output import RunOutput
        from rbc_engine.sinks.slides_csv import SlideTally

        tally = SlideTally()
        if um_per_px is not None and engine.pack.manifest.detector.um_per_canvas_px is None:
            raise UsageError(
                f"--um-per-px {um_per_px} has no effect: pack {engine.pack.name} does not know its own scale; "
                f"leave it out"
            )
        with (
            stop_on_signal() as stop,
            RunOutput(out, engine.pack, formats=chosen, overwrite=overwrite) as output,
            _Progress(len(entries), show=not (quiet or as_json)) as progress,
        ):

            def on_result(result: FieldResult) -> None:
                tally.add(result)
                progress.add(result)

            summary = run_fields(
                engine,
                entries,
                output,
                pixel_um=um_per_px,
                started=started,
                settings={"limit": limit, "formats": chosen},
                warnings=warnings,
                stop=stop,
                on_result=on_result,
            )
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    elif not quiet:
        _print_summary(tally, summary["warnings"], out)
    raise typer.Exit(_exit_code(summary["counts"], interrupted=stop.is_set()))


def _exit_code(counts: dict[str, int], *, interrupted: bool) -> int:
    if interrupted:
        return EXIT_INTERRUPTED
    if counts["failed"] == counts["fields"]:
        return EXIT_NOTHING_DONE
    return EXIT_SOME_FAILED if counts["failed"] else EXIT_DONE


class _Progress:
    """A bar with fields, slides, cells per second and time left; nothing where stderr is no terminal."""

    def __init__(self, fields: int, *, show: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("fields"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[slides]} slides"),
            TextColumn("{task.fields[regions_per_s]:.0f} cells/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (show and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=fields, slides=0, regions_per_s=0.0)
        self._slides: set[str] = set()
        self._regions = 0
        self._started = time.perf_counter()

    def add(self, result: FieldResult) -> None:
        self._slides.add(result.slide)
        self._regions += len(result.regions) if result.regions is not None else 0
        seconds = time.perf_counter() - self._started
        self._bar.update(
            self._task,
            advance=1,
            slides=len(self._slides),
            regions_per_s=self._regions / max(seconds, 1e-6),
        )

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _print_summary(tally: SlideTally, warnings: list[str], out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("slide", "fields", "failed", "regions", "abnormal", "share", "95 % interval")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    rows = list(tally.rows())
    for row in rows[:_TABLE_ROWS]:
        table.add_row(
            escape(row.slide),
            str(row.fields),
            str(row.failed),
            str(row.regions),
            str(row.abnormal),
            f"{row.abnormal_fraction:.1%}" if row.abnormal_fraction is not None else "",
            f"{row.ci_low:.1%} to {row.ci_high:.1%}" if row.ci_low is not None else "",
        )
    console.print(table)
    if len(rows) > _TABLE_ROWS:
        console.print(f"and {len(rows) - _TABLE_ROWS} more slides in slides.csv")
    for warning in warnings:
        console.print(f"note: {escape(warning)}", soft_wrap=True)
    console.print(f"results in {escape(str(out))}", soft_wrap=True)
