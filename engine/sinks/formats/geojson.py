"""geojson/: one file a field that QuPath opens, each region a detection.

The form is that of QuPath 0.4 and later: "Exporting annotations", GeoJSON, in its documentation,
and the readers PathIO, QuPathTypeAdapters, ROITypeAdapters and GsonTools of its source.
"""

from __future__ import annotations

import colorsys
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic_folder import AtomicFolder
from rbc_engine.sinks.formats.overlay.drawing import KIND_RGB, NORMAL_RGB
from rbc_engine.sinks.origin import origin
from rbc_engine.text import encodable
from rbc_engine.types.arrays import Float32
from rbc_engine.types.kinds import KIND_LABELS, Kind
from rbc_engine.types.regions import RegionFlag, Regions
from rbc_engine.types.results import FieldResult

__all__ = ["GeoJsonFolder", "type_colours"]

_NAMESPACE = uuid.UUID("6f3c1f0e-0d2a-5c6e-9a41-3b8d9f5c7e21")
"""Of the ids of regions: the same field of the same slide always gives the same ids."""

_GOLDEN = 0.618
"""Steps of the hue between neighbouring types: no two of a few dozen come near each other."""


class GeoJsonFolder:
    """Write geojson/SLIDE/FIELD.geojson (names: AtomicFolder); failed fields have none.

    A region's class is its types, by QuPath's rule for several: "ovalocyte: teardrop"; of a region
    of another kind than red, that kind. Text is plain ASCII, with JSON's escapes, since QuPath
    reads in the encoding of its system.
    """

    NAME = "geojson"
    SUFFIX = ".geojson"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._colours = type_colours(pack.types, abnormal=pack.manifest.abnormal)
        self._origin = origin(pack)
        self._classes: dict[bytes, str] = {}
        self._feature = _feature_template(pack.types)
        self._folder = AtomicFolder(folder / self.NAME)

    def write(self, result: FieldResult) -> None:
        if result.regions is None:
            return
        about = json.dumps(
            {
                "slide": encodable(result.slide),
                "field": encodable(result.field),
                "width": result.width,
                "height": result.height,
                **self._origin,
            }
        )
        features = ",\n".join(self._features(result, result.regions))
        head = f'{{"type": "FeatureCollection", "rbc_engine": {about}, "features": ['
        text = f"{head}\n{features}\n]}}\n"
        self._folder.write_field(result, text.encode("ascii"), suffix=self.SUFFIX)

    def complete(self) -> None:
        self._folder.complete()

    def files(self) -> Iterator[str]:
        return self._folder.files()

    def finish(self) -> None:
        self._folder.finish()

    def discard(self) -> None:
        self._folder.discard()

    def _features(self, result: FieldResult, regions: Regions) -> list[str]:
        of_field = uuid.uuid5(_NAMESPACE, encodable(f"{result.slide}\0{result.field}"))
        x0, y0, x1, y1 = regions.boxes.T
        corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1, x0, y0], axis=1)
        measured = np.concatenate([corners, _measurements(regions)], axis=1, dtype=np.float64)
        return [
            self._feature % (uuid.uuid5(of_field, str(index)), *values[:10], held, *values[10:])
            for index, (values, held) in enumerate(
                zip(measured.tolist(), map(self._class, regions.has, regions.kinds), strict=True)
            )
        ]

    def _class(self, has: npt.NDArray[np.bool_], kind: int) -> str:
        """Return a region's classification as JSON with a comma; empty if it holds no type."""
        if kind != Kind.RED:
            other = {"name": KIND_LABELS[kind], "color": KIND_RGB[Kind(kind)]}
            return f'"classification": {json.dumps(other)}, '
        key = has.tobytes()
        if key not in self._classes:
            held = np.flatnonzero(has).tolist()
            # QuPath has one colour for each class. An abnormal type says more than the normal one
            # beside it.
            shown = max(
                held, key=lambda index: (self._colours[index] != NORMAL_RGB, -index), default=0
            )
            found = {
                "name": ": ".join(self._types[index] for index in held),
                "color": self._colours[shown],
            }
            self._classes[key] = f'"classification": {json.dumps(found)}, ' if held else ""
        return self._classes[key]


def _feature_template(types: Sequence[str]) -> str:
    """Return a feature as JSON with % fields: id, ten coordinates, class, measurements."""
    names = ["score", *(f"p {name}" for name in types), "abnormal p", "abnormal"]
    names += ["cells low", "cells high", *RegionFlag(-1).names()]
    measurements = ", ".join(f"{json.dumps(name)}: %.7g".replace("%%", "%%%%") for name in names)
    ring = ", ".join(["[%.2f, %.2f]"] * 5)
    return (
        f'{{"type": "Feature", "id": "%s", '
        f'"geometry": {{"type": "Polygon", "coordinates": [[{ring}]]}}, '
        f'"properties": {{"objectType": "detection", %s"measurements": {{{measurements}}}}}}}'
    )


def _measurements(regions: Regions) -> Float32:
    """Return float32 [R, M], in the order of the template."""
    columns: list[npt.NDArray[Any]] = [
        regions.scores[:, None],
        regions.probabilities,
        *(
            getattr(regions, name)[:, None]
            for name in ("abnormal_p", "abnormal", "cells_low", "cells_high")
        ),
        *((regions.flags & flag > 0)[:, None] for flag in RegionFlag),
    ]
    return np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe")


def type_colours(types: Sequence[str], *, abnormal: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return an RGB colour for each type: blue if normal, warm to green hues for the others."""
    colours = []
    turn = 0
    for name in types:
        if name not in abnormal:
            colours.append(NORMAL_RGB)
            continue
        # From magenta over red and yellow to green: what is not near the blue.
        hue = (0.88 + 0.55 * (turn * _GOLDEN % 1)) % 1
        rgb = colorsys.hls_to_rgb(hue, 0.42, 0.85)
        colours.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
        turn += 1
    return colours
