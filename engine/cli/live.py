"""Analyse the frames of a camera, or images played like one, as they arrive: `rbc-engine live`."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rbc_engine.cli.terminal import options
from rbc_engine.cli.terminal.exit_codes import exit_code
from rbc_engine.cli.terminal.stopping import stop_on_signal
from rbc_engine.cli.terminal.streams import print_json
from rbc_engine.errors import OutputError, UsageError
from rbc_engine.runs.given_scale import check_um_per_px, knows_scale
from rbc_engine.sinks.formats.table import chosen_formats
from rbc_engine.text import printable

if TYPE_CHECKING:
    from rbc_engine.runs.microscope.live import Feed
    from rbc_engine.stats.stage_map import StageMap

__all__ = ["live"]

_ON_FULL = ("block", "drop_oldest", "drop_newest", "reject")
_MAX_UNREAD = 20_000
"""Outcomes that may wait for a slow disk: a minute of a fast camera, a few megabytes."""
_MAX_UNREAD_FRAMES = 200
"""The same, where they carry their frames for outputs that show pixels."""


def live(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; by default live-DATE-TIME in the current folder."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Micro-Manager configuration; by default the DemoCamera."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Play the images of this folder instead of a camera.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames per second; by default 10 for --replay, the camera's own otherwise."
        ),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Repeat --replay endlessly.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this many seconds.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    enough_width: Annotated[
        float | None,
        typer.Option(help="Stop when the 95 % interval of the abnormal share is this narrow."),
    ] = None,
    min_cells: Annotated[
        int, typer.Option(min=1, help="With --enough-width: the least number of cells.")
    ] = 1000,
    on_full: Annotated[
        str, typer.Option(help="When the queue is full: block, drop_oldest, drop_newest or reject.")
    ] = "drop_oldest",
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, help="Most frames waiting or being analysed at once.")
    ] = None,
    max_age_s: Annotated[
        float | None, typer.Option(help="Do not analyse a frame that has waited longer than this.")
    ] = None,
    slide: Annotated[str, typer.Option(help="Name of the slide; ignored with --replay.")] = "live",
    um_per_px: Annotated[
        float | None,
        typer.Option(help="Width of a pixel in µm; by default taken from the configuration."),
    ] = None,
    estimate_scale: options.EstimateScale = True,
    field_prior: options.FieldPrior = True,
    pack: options.Pack = "chula12",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    overwrite: options.Overwrite = False,
    formats: options.Formats = "",
    recover: Annotated[
        Path | None,
        typer.Option(help="Complete the files of an interrupted live run; starts no camera."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Analyse frames as they arrive, show running totals, and write the same files as `run`."""
    started = time.perf_counter()
    if recover is not None:
        _recover(recover, pack, as_json=as_json, quiet=quiet)
        return
    _check(
        config=config,
        replay=replay,
        loop=loop,
        fps=fps,
        seconds=seconds,
        um_per_px=um_per_px,
        enough_width=enough_width,
        on_full=on_full,
    )
    folder = out or Path(time.strftime("live-%Y%m%d-%H%M%S"))
    from rbc_engine.sinks.out_folder import claim

    given = {"--replay": replay, "--config": config}
    claimed = claim(
        folder,
        "overwrite" if overwrite else "new",
        inputs={name: [path] for name, path in given.items() if path is not None},
        resumes=False,
    )
    outputs = chosen_formats(options.names(formats))
    limits: dict[str, Any] = {"fps": fps, "seconds": seconds, "frames": frames}
    feed, stage, decoder = _source(config, replay, loop=loop, um_per_px=um_per_px, **limits)
    from rbc_engine.engine import Engine

    with Engine.open(
        pack,
        device=device,
        precision=precision,
        estimate_scale=estimate_scale,
        field_prior=field_prior,
    ) as engine:
        from rbc_engine.cli.terminal.live_table import LiveTable
        from rbc_engine.runs.microscope.live import live_head, run_live
        from rbc_engine.sinks.journal.live_journal import LiveJournal
        from rbc_engine.sinks.output import RunOutput
        from rbc_engine.stats.monitor import SlideMonitor

        settings = {
            **limits,
            "source": "replay" if replay else "config" if config else "DemoCamera",
            "on_full": on_full,
            "max_age_s": max_age_s,
            "um_per_px": um_per_px,
            "enough_width": enough_width,
            "min_cells": None if enough_width is None else min_cells,
            "formats": outputs,
        }
        monitor = SlideMonitor(engine.pack.types, stage=stage)
        stop_early = threading.Event()
        with (
            stop_on_signal() as interrupted,
            RunOutput(claimed, engine.pack, formats=outputs) as output,
            engine.session(
                on_full=on_full,
                max_in_flight=max_in_flight,
                max_age_s=max_age_s,
                max_unread=max(
                    _MAX_UNREAD_FRAMES if output.needs_frames else _MAX_UNREAD, max_in_flight or 0
                ),
                keep_frames=output.needs_frames,
                slide=slide,
                pixel_um=um_per_px if knows_scale(engine.pack) else None,
            ) as session,
            LiveTable(show=not (quiet or as_json)) as table,
        ):
            settings["max_in_flight"] = session.max_in_flight

            def on_tick(state: Any) -> None:
                table.show_state(state)
                if enough_width is not None and monitor.enough(
                    width=enough_width, min_cells=min_cells
                ):
                    stop_early.set()

            try:
                head = live_head(engine, decoder=decoder, settings=settings)
                with LiveJournal(claimed, head) as journal:
                    summary = run_live(
                        engine,
                        session,
                        feed,
                        output,
                        journal,
                        monitor,
                        decoder=decoder,
                        started=started,
                        settings=settings,
                        stops={"enough_width": stop_early, "interrupted": interrupted},
                        on_tick=on_tick,
                    )
            except OutputError as error:
                raise OutputError(
                    f"{error}; what was written before is safe: "
                    f"`rbc-engine live --recover {folder}` makes its files"
                ) from error
    if as_json:
        print_json(summary.text())
    elif not quiet:
        table.print_end(summary, folder)
    if quiet and summary.source_error is not None:
        print(
            f"rbc-engine: the source of frames failed: {printable(summary.source_error)}",
            file=sys.stderr,
        )
    ended = summary.frames or {}
    raise typer.Exit(
        exit_code(
            done=ended["done"],
            failed=ended["failed"] + (summary.source_error is not None),
            interrupted=interrupted.is_set(),
        )
    )


def _check(
    *,
    config: Path | None,
    replay: Path | None,
    loop: bool,
    fps: float | None,
    seconds: float | None,
    um_per_px: float | None,
    enough_width: float | None,
    on_full: str,
) -> None:
    if config is not None and replay is not None:
        raise UsageError("--config and --replay exclude each other; omit one of them")
    if loop and replay is None:
        raise UsageError("--loop is for --replay; omit it for a camera")
    for name, value in (("--fps", fps), ("--seconds", seconds)):
        if value is not None and not 0.001 <= value <= 1e6:
            raise UsageError(f"{name} must lie in 0.001..1000000 (got {value})")
    check_um_per_px(um_per_px)
    if enough_width is not None and not 0 < enough_width <= 1:
        raise UsageError(
            f"--enough-width must lie in 0..1 and not be 0 (got {enough_width}); 0.02 is 2 "
            "percentage points"
        )
    if on_full not in _ON_FULL:
        raise UsageError(f"--on-full must be one of {', '.join(_ON_FULL)} (got {on_full!r})")


def _source(
    config: Path | None,
    replay: Path | None,
    *,
    loop: bool,
    um_per_px: float | None,
    fps: float | None,
    seconds: float | None,
    frames: int | None,
) -> tuple[Feed, StageMap | None, str]:
    """Return the source of frames, how pixels lie on the stage if there is one, and the decoder."""
    limits: dict[str, Any] = {"seconds": seconds, "frames": frames}
    if replay is not None:
        from rbc_engine.sources.find import find_fields
        from rbc_engine.sources.open import cpu_decoders
        from rbc_engine.sources.replay import feed_replay

        entries = find_fields([replay]).entries
        rate = fps or 10.0
        return (
            lambda session, stop: feed_replay(
                entries, session, fps=rate, stop=stop, loop=loop, **limits
            ),
            None,
            cpu_decoders(),
        )
    from rbc_engine.sources.camera import feed_sequence, open_core, stage_map
    from rbc_engine.stats.stage_map import StageMap

    core = open_core(config)
    stage = StageMap.of_pixel(um_per_px) if um_per_px is not None else stage_map(core)
    if not core.getXYStageDevice():
        stage = None
    return (
        lambda session, stop: feed_sequence(core, session, fps=fps, stop=stop, **limits),
        stage,
        f"none; Micro-Manager {core.getVersionInfo()}",
    )


def _recover(folder: Path, pack: str, *, as_json: bool, quiet: bool) -> None:
    from rbc_engine.packs.pack import Pack, find_pack
    from rbc_engine.runs.microscope.live import recover

    summary = recover(folder, Pack.open(find_pack(pack)))
    if as_json:
        print_json(summary.text())
    elif not quiet:
        print(f"{summary.counts.fields} fields recovered; results in {folder}")
