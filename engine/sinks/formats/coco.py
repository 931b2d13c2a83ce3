"""coco.json: images, regions and types as the COCO tools read them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rbc_engine.packs.pack import Pack
from rbc_engine.sinks.files.atomic import AtomicFile, explain_os_errors
from rbc_engine.sinks.origin import origin
from rbc_engine.sinks.tables.regions_parquet import FLAG_NAMES
from rbc_engine.text import encodable
from rbc_engine.types.kinds import KIND_LABELS, Kind
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

__all__ = ["CocoJson"]


class CocoJson:
    """Write one COCO annotation a region; failed fields have no image.

    Boxes are [x, y, width, height] in px.

    COCO gives an annotation one category: the likeliest of the types that the region holds, or of
    all where it holds none; of a region of another kind than red, that kind. `attributes` have the
    rest. Category ids count from 1, in the pack's order of types; the kinds that its detector finds
    come after them. iscrowd: several cells are known in it.
    """

    NAME = "coco.json"
    needs_frames = False

    def __init__(self, folder: Path, pack: Pack) -> None:
        self._types = pack.types
        self._template = _annotation_template(len(pack.types))
        self._held: dict[bytes, str] = {}
        self._images = self._annotations = 0
        self._file = AtomicFile(folder / self.NAME)
        try:
            # Images come first in the file, and both grow with the run: they meet at its end.
            self._rest = AtomicFile(folder / self.NAME)
        except BaseException:
            self._file.discard()
            raise
        about = origin(pack)
        info = {
            "description": "red blood cell regions found by rbc-engine",
            "version": about["program"]["version"],
            **about,
        }
        abnormal = pack.manifest.abnormal
        categories = [
            {
                "id": index,
                "name": name,
                "supercategory": "abnormal" if name in abnormal else "normal",
            }
            for index, name in enumerate(pack.types, 1)
        ]
        categories += [
            {"id": len(pack.types) + kind, "name": kind.label, "supercategory": "other"}
            for kind in sorted(map(Kind.of, pack.manifest.detector.kinds))
            if kind is not Kind.RED
        ]
        head = (
            f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"images": ['
        )
        self._file.write(head.encode())
        self._rest.write(b'],\n"annotations": [')

    def write(self, result: FieldResult) -> None:
        if result.regions is None:
            return
        self._images += 1
        image = {
            "id": self._images,
            "file_name": encodable(_file_name(result)),
            "slide": encodable(result.slide),
            "width": result.width,
            "height": result.height,
            "saturated": result.saturated,
        }
        self._file.write(_separator(first=self._images == 1) + json.dumps(image).encode())
        if len(result.regions):
            annotations = ",\n".join(self._annotated(result.regions))
            self._rest.write(_separator(first=self._annotations == 0) + annotations.encode())
            self._annotations += len(result.regions)

    def complete(self) -> None:
        if not self._file.file.closed:
            self._rest.write(b"]}\n")
            self._rest.complete()
            with explain_os_errors(self._file.path), self._rest.beside.open("rb") as rest:
                shutil.copyfileobj(rest, self._file.file, 1 << 20)
            self._rest.discard()
        self._file.complete()

    def finish(self) -> None:
        self.complete()
        self._file.finish()

    def discard(self) -> None:
        self._rest.discard()
        self._file.discard()

    def _annotated(self, regions: Regions) -> list[str]:
        boxes = regions.boxes.astype(np.float64).round(2)
        sides = boxes[:, 2:] - boxes[:, :2]
        held = regions.has | ~np.asarray(regions.has.any(axis=1))[:, None]
        category = 1 + np.where(held, regions.probabilities, -1).argmax(axis=1)
        category = np.where(regions.red, category, len(self._types) + regions.kinds)
        crowd = regions.cells.per_region(len(regions)) > 1
        numbers = np.concatenate(
            [
                np.column_stack([category, boxes[:, :2], sides, sides.prod(axis=1)]),
                np.column_stack([crowd, regions.scores, regions.abnormal_p]),
                np.column_stack([regions.cells_low, regions.cells_high]),
                regions.probabilities,
            ],
            axis=1,
        )
        kinds = (KIND_LABELS[kind] for kind in regions.kinds.tolist())
        rows = zip(
            numbers.tolist(), kinds, regions.abnormal, regions.flags, regions.has, strict=True
        )
        return [
            self._template
            % (
                number,
                self._images,
                *row,
                kind,
                "true" if abnormal else "false",
                _FLAGS[bits],
                self._names(has),
            )
            for number, (row, kind, abnormal, bits, has) in enumerate(rows, self._annotations + 1)
        ]

    def _names(self, has: npt.NDArray[np.bool_]) -> str:
        """Return the types that a region holds, as JSON."""
        key = has.tobytes()
        if key not in self._held:
            self._held[key] = json.dumps([self._types[index] for index in np.flatnonzero(has)])
        return self._held[key]


_FLAGS = [json.dumps(names.split(";") if names else []) for names in FLAG_NAMES]


def _annotation_template(types: int) -> str:
    """Return an annotation as JSON, to be filled by %."""
    return (
        '{"id": %d, "image_id": %d, "category_id": %d, "bbox": [%.2f, %.2f, %.2f, %.2f], '
        '"area": %.4f, '
        '"iscrowd": %d, "score": %.7g, "attributes": {"abnormal_p": %.7g, '
        '"cells_low": %d, "cells_high": %d, '
        f'"p": [{", ".join(["%.7g"] * types)}], '
        '"kind": "%s", "abnormal": %s, "flags": %s, "types": %s}}'
    )


def _file_name(result: FieldResult) -> str:
    """Return the path below INPUT, behind its slide unless it begins so: unique in the file."""
    if result.field == result.slide or result.field.startswith(f"{result.slide}/"):
        return result.field
    return f"{result.slide}/{result.field}"


def _separator(*, first: bool) -> bytes:
    return b"\n" if first else b",\n"
