"""Measure speed, against the machine's limits and other implementations: `rbc-engine bench`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rbc_engine.bench.settings import BenchSettings

__all__ = ["bench"]


def bench(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images to measure with; by default fields are rendered."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for bench.json and the plots; created if missing.")
    ] = None,
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    peers: Annotated[
        str,
        typer.Option(
            help="Compare with: reference, compiled, onnxruntime, torch-tensorrt; all; none."
        ),
    ] = "reference",
    sizes: Annotated[
        str, typer.Option(help="Sizes of rendered fields, px; the second is used with peers.")
    ] = "640x480,1280x960,1920x1080",
    regions_per_field: Annotated[
        int, typer.Option(min=0, max=600, help="Cells per rendered field; none of them touch.")
    ] = 60,
    fields: Annotated[int, typer.Option(min=1, help="Fields per pass.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Measured passes, after a warm-up.")] = 5,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Frames per batch of a lane; by default chosen for the machine."),
    ] = None,
    lanes: options.Lanes = None,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling", help="Also measure cost against fields, cells and cores, and a plan."
        ),
    ] = False,
    scaling_fields: Annotated[
        int, typer.Option(min=20, help="With --scaling: the largest number of fields.")
    ] = 1000,
    plots: Annotated[
        bool, typer.Option("--plots", help="Also draw plots, with throughput by batch and lanes.")
    ] = False,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="fields=N,cells=N,slides-per-hour=N,hours=N",
            help="Measure by cores only, and print how many machines such slides need: fields a "
            "slide, cells a field, hours a day.",
        ),
    ] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Check that everything works; figures are rough.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print bench.json only.")] = False,
) -> None:
    """Measure the engine end to end and stage by stage, against the machine's limits and other
    implementations.
    """
    from rbc_engine.bench.settings import BenchSettings, parse_peers, parse_sizes

    if plots and out is None:
        raise UsageError("--plots needs --out, the folder for them")
    if plots and find_spec("matplotlib") is None:
        raise UsageError(
            "--plots needs matplotlib, which is not installed; pip install 'rbc-engine[bench]'"
        )
    settings = BenchSettings(
        pack=pack,
        device=device,
        precision=precision,
        batch=batch,
        lanes=lanes,
        data=data,
        sizes=parse_sizes(sizes) if data is None else (),
        regions_per_field=regions_per_field,
        fields=fields,
        repeats=repeats,
        peers=parse_peers(peers),
        scaling_fields=scaling_fields if scaling else None,
        plots=plots,
        short=short,
    )
    if plan is not None:
        _plan(plan, settings, out=out, as_json=as_json)
        return
    if out is not None:
        _check_out(out, overwrite=overwrite)
    from rich.console import Console

    from rbc_engine.bench.bench import run_bench
    from rbc_engine.bench.report import print_report, report_console, write_report

    with Console(stderr=True).status("opening the engine") as status:
        report = run_bench(settings, say=lambda line: status.update(line))
    if out is not None:
        drawn = {}
        if plots:
            from rbc_engine.bench.bench_plots import draw_plots

            drawn = draw_plots(report)
        write_report(out, report, drawn)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    print_report(report, report_console())
    if out is not None:
        print(f"results in {out}")


def _plan(plan: str, settings: BenchSettings, *, out: Path | None, as_json: bool) -> None:
    from rbc_engine.bench.chapters.site_plan import parse_workload

    if out is not None or settings.scaling_fields is not None:
        raise UsageError("--plan only prints; omit --out, --plots and --scaling, or omit --plan")
    wanted = parse_workload(plan)
    from rich.console import Console

    from rbc_engine.bench.bench import run_plan
    from rbc_engine.bench.report import print_plan, report_console

    with Console(stderr=True).status("measuring by cores"):
        report = run_plan(settings, wanted)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print_plan(report, report_console())


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Check --out before minutes of measuring rather than after."""
    from rbc_engine.bench.report import BENCH_JSON
    from rbc_engine.sinks.files.atomic import explain_os_errors

    with explain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        if (out / BENCH_JSON).exists() and not overwrite:
            raise OutputError(
                f"--out {out} already has a {BENCH_JSON}; pass --overwrite to replace it, or name "
                "another --out"
            )
