"""`rbc-engine bench`: how fast, how near to the machine's limit, and ahead of whom."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.errors import OutputError, UsageError

__all__ = ["bench"]


def bench(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images to measure with; by default fields are rendered."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for bench.json and the plots; made if missing.")
    ] = None,
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    peers: Annotated[
        str,
        typer.Option(
            help="To compare with: reference, compiled, onnxruntime, torch-tensorrt; all; none."
        ),
    ] = "reference",
    sizes: Annotated[
        str, typer.Option(help="Of rendered fields, px; the second one is compared with peers.")
    ] = "640x480,1280x960,1920x1080",
    regions_per_field: Annotated[
        int, typer.Option(min=0, max=600, help="Cells of a rendered field; none of them touch.")
    ] = 60,
    fields: Annotated[int, typer.Option(min=1, help="Fields of one pass.")] = 12,
    repeats: Annotated[int, typer.Option(min=1, help="Passes that count.")] = 5,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Frames a lane takes at once; by default what suits.")
    ] = None,
    lanes: options.Lanes = None,
    scaling: Annotated[
        bool,
        typer.Option(
            "--scaling", help="Also the cost against fields, cells and cores; and a plan."
        ),
    ] = False,
    scaling_fields: Annotated[
        int, typer.Option(min=20, help="With --scaling: the most fields of a run.")
    ] = 1000,
    plots: Annotated[
        bool, typer.Option("--plots", help="Also plots, and throughput against batch and lanes.")
    ] = False,
    short: Annotated[
        bool, typer.Option("--short", help="Only show that it all works; the figures are rough.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print bench.json, and nothing else.")
    ] = False,
) -> None:
    """Measures the engine end to end and stage by stage, beside the machine's limits and other ways to do the same."""
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


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Before minutes of measuring, not after."""
    from rbc_engine.bench.report import BENCH_JSON
    from rbc_engine.sinks.files.atomic import explain_os_errors

    with explain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        if (out / BENCH_JSON).exists() and not overwrite:
            raise OutputError(
                f"--out {out} has a {BENCH_JSON} already; pass --overwrite to replace it, or name another --out"
            )
