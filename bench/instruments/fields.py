"""Provide the fields of a bench: files on disk, and the same decoded in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from rbc_engine.bench.settings import Size
from rbc_engine.devices.cpu.kind import cores_here
from rbc_engine.errors import ImageError, UsageError
from rbc_engine.lanes.canvas import fit_canvas
from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.sources.find import find_fields
from rbc_engine.sources.images.decode import read_image
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import MAX_SIDE_PX, MIN_SIDE_PX, Decoded, FieldRef, Frame

__all__ = ["BenchFields", "cell_px_for", "check_size", "read_fields", "render_fields"]

_JPEG_QUALITY = 92
_SMALLEST_CELL_PX = 12.0
_FILLED = 0.35
"""Largest share of a field's area that cells may take: more do not fit without touching."""
_MOST_DIFFERENT = 10
"""Rendering takes as long as analysing; after this many, fields are repeated under other names."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BenchFields:
    """Hold a set of fields.

    name: of the set, in the report. decoded: in memory. refs: the files. bytes: of a file, on
    average.
    """

    name: str
    decoded: list[Decoded]
    refs: list[FieldRef]
    bytes: float

    def repeated(self, count: int) -> list[Decoded]:
        """Return `count` frames in memory, repeating the same pixels under different names."""
        return [
            replace(item, ref=replace(item.ref, field=f"{index}"))
            for index, item in zip(range(count), itertools.cycle(self.decoded), strict=False)
        ]


def check_size(size: Size, settings: DetectorSettings) -> str | None:
    """Return why the detector cannot take a field of this size; None if it can."""
    if min(size.width, size.height) < MIN_SIDE_PX or max(size.width, size.height) > MAX_SIDE_PX:
        return f"its sides must lie in {MIN_SIDE_PX}..{MAX_SIDE_PX} px"
    try:
        fit_canvas((size.height, size.width), pixel_um=None, settings=settings)
    except ImageError as error:
        return str(error)
    return None


def render_fields(folder: Path, size: Size, *, count: int, cells: int) -> BenchFields:
    """Render smears as JPEG files in `folder` and decode them. The same every time.

    Raises UsageError if the field is too small for that many cells.
    """
    folder.mkdir(parents=True)
    different = min(count, _MOST_DIFFERENT)
    paths = [folder / f"field-{index:05}.jpg" for index in range(count)]

    def render(index: int) -> None:
        field = render_field(
            seed=index,
            width=size.width,
            height=size.height,
            cells=cells,
            cell_px=cell_px_for(size, cells),
            touching=0.0,
        )
        Image.fromarray(field.pixels).save(paths[index], quality=_JPEG_QUALITY)

    with ThreadPoolExecutor(cores_here()) as pool:
        list(pool.map(render, range(different)))
    for index in range(different, count):
        paths[index].write_bytes(paths[index % different].read_bytes())
    return _fields(
        str(size), [FieldRef(slide="bench", field=path.name, path=path) for path in paths]
    )


def read_fields(data: Path, *, count: int, settings: DetectorSettings) -> BenchFields:
    """Read the images of a folder, repeated until there are `count`.

    Raises UsageError if it has none that the engine can use.
    """
    entries = [entry for entry in find_fields([data]).entries if isinstance(entry, FieldRef)]
    usable = []
    for entry in entries[:count]:
        try:
            height, width = read_image(entry.path, name=entry.field).shape[:2]
        except ImageError:
            continue
        if check_size(Size(width=width, height=height), settings) is None:
            usable.append(entry)
    if not usable:
        raise UsageError(f"--data {data} has no image that the engine can use; name another folder")
    refs = [
        replace(entry, field=entry.field if index < len(usable) else f"{index}-{entry.field}")
        for index, entry in zip(range(count), itertools.cycle(usable), strict=False)
    ]
    return _fields("data", refs)


def cell_px_for(size: Size, cells: int) -> float | None:
    """Return the mean diameter at which `cells` cells fit; None for the usual one."""
    usual = min(size.width, size.height) / 12
    if not cells:
        return None
    fitting = (_FILLED * size.width * size.height / cells / 0.785) ** 0.5
    return None if fitting >= usual else max(fitting, _SMALLEST_CELL_PX)


def _fields(name: str, refs: list[FieldRef]) -> BenchFields:
    return BenchFields(
        name=name,
        decoded=list(_decode(refs)),
        refs=refs,
        bytes=sum(ref.path.stat().st_size for ref in refs) / len(refs),
    )


def _decode(refs: list[FieldRef]) -> Iterator[Decoded]:
    seen: dict[bytes, Frame] = {}
    for ref in refs:
        data = ref.path.read_bytes()
        if data not in seen:  # repeated fields share their pixels
            seen[data] = Frame(pixels=read_image(ref.path, name=ref.field))
        frame = replace(seen[data], slide=ref.slide, field=ref.field)
        yield Decoded(ref=ref, frame=frame)
