"""Compile a pack for this machine and verify it on its golden inputs: `rbc-engine build`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.errors import UsageError

__all__ = ["build"]

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def build(
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    lanes: options.Lanes = None,
    frame: Annotated[
        list[str] | None,
        typer.Option(help="WIDTHxHEIGHT of images to be run, e.g. 1920x1080. May be repeated."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Compile a pack for a device and verify it on its golden inputs; a network that fails is
    deleted.
    """
    sizes = [_parse_size(text) for text in frame or []]
    from rbc_engine.cli.terminal.compile_watch import CompileWatch
    from rbc_engine.runs.build import build_engine

    with CompileWatch(quiet=quiet) as watch:
        report = build_engine(
            pack, device=device, precision=precision, lanes=lanes, frame_sizes=sizes, watch=watch
        )
    if quiet:
        return
    for name, drift in zip(report.devices, report.golden, strict=True):
        print(name)
        print(f"  compared with the CPU in fp32 on golden inputs: {drift.line()}")
    for note in report.notes:
        print(f"note: {note}")
    print(
        f"built in {report.seconds:.1f} s, {report.lanes} lanes; {report.golden[0].fields} golden "
        "inputs agree"
    )
    if not report.keeps_networks:
        print("nothing is stored: on a CPU, networks are compiled at each start, in seconds")


def _parse_size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"--frame must be WIDTHxHEIGHT in pixels, e.g. 1920x1080 (got {text!r})")
    return int(match[1]), int(match[2])
