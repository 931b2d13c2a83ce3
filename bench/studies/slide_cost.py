"""Run a whole slide through `rbc-engine run` and measure wall time, peak memory, and the share of
reading and tiling.

    python -m rbc_engine.bench.studies.slide_cost    # 40,000 x 30,000 px
    python -m rbc_engine.bench.studies.slide_cost --size 6000x4500 --cells-share 1 --out DIR

Renders a JPEG pyramid of 0.25 µm per pixel, stitched from a few rendered pieces: cells in the
middle, background around them. Runs it as a process of its own and checks two bounds: at most 2 GB
over all its processes; reading, tiling and merging under a tenth of the wall time. Run it on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import tifffile

from rbc_engine.bench.settings import Size, parse_sizes
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.errors import UsageError
from rbc_engine.sinks.run_json import RUN_JSON, RunRecord
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.arrays import UInt8

__all__ = ["main", "render_slide", "tree_peak_bytes"]

_PIXEL_UM = 0.25
_CELL_UM = 7.6
_TILE_PX = 512
_PIECE_PX = 2048
_PIECE_CELLS = 1200
"""4600 per square millimetre: slightly thinner than the fields of Chula RBC-12."""
_PIECES = 4
_DOWNS = (1, 4, 16)
_JPEG_QUALITY = 90
_MOST_BYTES = 2 * 10**9
_MOST_SHARE = 0.1
_SAMPLE_S = 0.05


def render_slide(path: Path, size: Size, *, cells_share: float) -> None:
    """Render a pyramid of three levels. cells_share: 0..1, of its area, around the middle; the rest
    is empty background.
    """
    pieces = [_piece(seed, cells=_PIECE_CELLS) for seed in range(_PIECES)]
    blank = _piece(_PIECES, cells=0)
    kinds = _layout(size, cells_share=cells_share)
    settings = {"photometric": "ycbcr", "compression": "jpeg", "metadata": None, "dtype": np.uint8}
    per_cm = 1e4 / _PIXEL_UM
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for down in _DOWNS:
            reduced = [_reduced(piece, down) for piece in (*pieces, blank)]
            shape = (-(-size.height // down), -(-size.width // down), 3)
            tiff.write(
                _tiles(reduced, kinds, shape[:2]),
                shape=shape,
                tile=(_TILE_PX, _TILE_PX),
                subsampling=(1, 1),
                subfiletype=int(down > 1),
                resolution=(per_cm / down, per_cm / down),
                resolutionunit="CENTIMETER",
                **settings,
            )


def _piece(seed: int, *, cells: int) -> UInt8:
    """Render one piece; all have the same stain and light."""
    return render_field(
        seed=seed,
        width=_PIECE_PX,
        height=_PIECE_PX,
        cells=cells,
        cell_px=_CELL_UM / _PIXEL_UM,
        look_seed=0,
    ).pixels


def _layout(size: Size, *, cells_share: float) -> npt.NDArray[np.int64]:
    """Return which piece lies where, [rows, columns]: those nearest to the middle have cells, the
    last one has none.
    """
    rows, columns = -(-size.height // _PIECE_PX), -(-size.width // _PIECE_PX)
    y, x = np.mgrid[:rows, :columns]
    distance = ((y + 0.5) / rows - 0.5) ** 2 + ((x + 0.5) / columns - 0.5) ** 2
    nearest = np.argsort(distance, axis=None, kind="stable")
    kinds = np.full(rows * columns, _PIECES, np.int64)
    with_cells = nearest[: round(cells_share * rows * columns)]
    kinds[with_cells] = np.arange(len(with_cells)) % _PIECES
    return kinds.reshape(rows, columns)


def _reduced(piece: UInt8, down: int) -> UInt8:
    side = _PIECE_PX // down
    mean = piece.reshape(side, down, side, down, 3).mean(axis=(1, 3))
    reduced: UInt8 = np.rint(mean).astype(np.uint8)
    return reduced


def _tiles(
    pieces: list[UInt8], kinds: npt.NDArray[np.int64], shape: tuple[int, int]
) -> Iterator[bytes]:
    """Yield the JPEGs of a level, row by row; repeated ones are encoded once. The side of a piece
    divides that of a tile, or the reverse.
    """
    side = len(pieces[0])
    encoded: dict[bytes, bytes] = {}
    for y in range(0, shape[0], _TILE_PX):
        for x in range(0, shape[1], _TILE_PX):
            pixels = _part(pieces, kinds, y=y, x=x, side=side)
            key = pixels.tobytes()
            if key not in encoded:
                encoded[key] = simplejpeg.encode_jpeg(
                    pixels, quality=_JPEG_QUALITY, colorsubsampling="444"
                )
            yield encoded[key]


def _part(pieces: list[UInt8], kinds: npt.NDArray[np.int64], *, y: int, x: int, side: int) -> UInt8:
    """Return one tile, cut out of a piece or stitched from several; background beyond the slide."""
    if side >= _TILE_PX:
        piece = pieces[kinds[y // side, x // side]]
        top, left = y % side, x % side
        return np.ascontiguousarray(piece[top : top + _TILE_PX, left : left + _TILE_PX])
    padded = np.pad(kinds, ((0, _TILE_PX // side), (0, _TILE_PX // side)), constant_values=_PIECES)
    count = _TILE_PX // side
    part = padded[y // side : y // side + count, x // side : x // side + count]
    return np.concatenate(
        [np.concatenate([pieces[kind] for kind in row], axis=1) for row in part], axis=0
    )


def tree_peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process and return the peak memory of it and its children: the sum of the peaks of
    those alive at once.
    """
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_peak_bytes(pid) for pid in _tree(process.pid)))
        time.sleep(_SAMPLE_S)
    return peak


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for parent in pids:  # grows during the loop
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += map(int, children.read_text().split())
            except OSError:
                continue  # it has just ended
    return pids


def _peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kib = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib[0]) * 1024 if kib else 0


def _size(text: str) -> Size:
    try:
        [size] = parse_sizes(text)
    except (UsageError, ValueError):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in px (got {text!r})") from None
    return size


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=Size(width=40_000, height=30_000),
        help="px of level 0 (40000x30000)",
    )
    parser.add_argument(
        "--cells-share",
        type=float,
        default=0.6,
        help="0..1, of the area that has cells; the rest is background (0.6)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for slide.tif and results/ (a temporary one)"
    )
    options = parser.parse_args()
    if not 0 <= options.cells_share <= 1:
        parser.error(f"--cells-share must lie in 0..1 (got {options.cells_share})")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return _measure(folder, options.size, cells_share=options.cells_share)


def _measure(folder: Path, size: Size, *, cells_share: float) -> int:
    slide, results = folder / "slide.tif", folder / "results"
    began = time.perf_counter()
    render_slide(slide, size, cells_share=cells_share)
    print(
        f"rendered {size} px, {slide.stat().st_size / 1e6:.0f} MB, in "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    command = [sys.executable, "-m", "rbc_engine", "run", str(slide), "--out", str(results)]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--formats", "only", "--overwrite"], stdout=subprocess.DEVNULL
    ) as process:
        peak = tree_peak_bytes(process)
    wall_s = time.perf_counter() - began
    if process.returncode:
        return int(process.returncode)
    run = RunRecord.read(results / RUN_JSON)
    [about] = run.whole_slides
    spent, cpu = (sum(about[name].values()) for name in ("seconds", "cpu_seconds"))
    figures = {
        "size": str(size),
        "cells_share": cells_share,
        "precision": run.precision,
        "tiles": about["tiles"],
        "regions": run.counts.regions,
        "wall_s": round(wall_s, 1),
        "startup_s": round(run.startup_seconds, 1),
        "peak_mb": round(peak / 1e6),
        "network_share": round(run.network_seconds / wall_s, 3),
        # Of threads that wait for the cores, beside the networks ...
        "read_and_tile_share": round(spent / wall_s, 3),
        # ... and what they compute themselves, of all that the cores could have done.
        "read_and_tile_cpu_share": round(cpu / wall_s / cores_here(), 3),
    }
    print(json.dumps(figures, indent=2))
    return 0 if peak <= _MOST_BYTES and figures["read_and_tile_share"] < _MOST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
