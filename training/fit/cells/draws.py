"""Draw what the detector of cells is trained on: canvases of all laboratories, by step number
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from rbc_engine.packs.manifest import DetectorSettings
from rbc_engine.training.datasets.laboratories.base import KINDS, WHITE_CELL, CellField
from rbc_engine.training.datasets.laboratories.collection import DatasetEntry
from rbc_engine.training.fit.augment import (
    blur_some,
    flip_and_turn_boxes,
    jpeg,
    vary_colour,
    vary_light,
)
from rbc_engine.training.fit.cells.drawn_canvas import (
    Canvas,
    crop_field,
    render_canvas,
    tile_canvases,
)
from rbc_engine.training.fit.cells.paste import find_donors, paste_cell
from rbc_engine.training.fit.cells.training_options import CellDetectorTraining
from rbc_engine.training.fit.restain import vary_stain

__all__ = ["CellDraws"]

Target = dict[str, Tensor]

# Units of colour changes, in levels, like those of vary_colour.
_DEVIATION = 40.0
_JPEG_QUALITY = (35, 96)
_MOST_PASTED = 2


class CellDraws:
    """Draw batches of canvases.

    Laboratories are drawn by their weights and fields of one uniformly. Close-ups, of which a
    canvas would show more margin than field, are arranged four to a canvas.
    """

    def __init__(
        self,
        fields: Sequence[CellField],
        entries: Sequence[DatasetEntry],
        *,
        kinds: Sequence[str],
        settings: DetectorSettings,
        training: CellDetectorTraining,
    ) -> None:
        """Prepare the draws. kinds: those that the detector distinguishes; cells of any other are
        background.

        entries: the laboratories of the fields; one without a field here is never drawn.
        """
        self._settings = settings
        self._training = training
        self._by_laboratory = _grouped(fields)
        present = [entry for entry in entries if entry.name in self._by_laboratory]
        self._entries = {entry.name: entry for entry in present}
        self._names = [entry.name for entry in present]
        weights = np.array([entry.weight for entry in present])
        self._chances = weights / weights.sum()
        self._label = np.array([kinds.index(k) + 1 if k in kinds else 0 for k in KINDS], np.int64)
        self._donors = [d for d in find_donors(fields) if self._label[d.field.kinds[d.index]]]
        close = np.array([self._is_close_up(name) for name in self._names])
        self._close_chances = np.where(close, self._chances, 0.0)
        self._without_white = {
            name: self._entries[name].middle is None
            and not any((f.kinds >= WHITE_CELL).any() for f in self._by_laboratory[name])
            for name in self._names
        }

    def batch(self, step: int) -> tuple[Tensor, list[Target]]:
        """Return the canvases of one step: float32 [B, 3, S, S], 0..1, and their targets.

        A target has `boxes` float32 [N, 4] and `unknown` float32 [U, 4] in canvas px, and `labels`
        int64 [N], 1 for the first kind.
        """
        training, settings = self._training, self._settings
        rng = np.random.default_rng([training.seed, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        canvases = [self._canvas(rng) for _ in range(training.batch)]
        pixels = [
            jpeg(canvas.pixels, quality=int(rng.integers(*_JPEG_QUALITY)))
            if rng.random() < training.jpeg_share
            else canvas.pixels
            for canvas in canvases
        ]
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
        mean = torch.tensor(settings.mean_rgb, dtype=torch.float32).view(1, 3, 1, 1)
        offset = float(mean.mean()) / _DEVIATION
        images = (images - mean) / _DEVIATION
        images = vary_light(images, generator=generator, strength=0.15, offset=offset)
        images = vary_colour(
            images, generator=generator, strength=training.colour_strength, offset=offset
        )
        images = ((images * _DEVIATION + mean) / 255).clamp(0, 1)
        images = blur_some(images, generator=generator, share=training.blur_share, most_px=1.4)
        boxes = [
            torch.from_numpy(np.concatenate([canvas.boxes, canvas.unknown])) for canvas in canvases
        ]
        images, boxes = flip_and_turn_boxes(images, boxes, generator=generator)
        targets = [
            self._target(canvas, turned) for canvas, turned in zip(canvases, boxes, strict=True)
        ]
        return images, targets

    def _target(self, canvas: Canvas, boxes: Tensor) -> Target:
        cells = boxes[: len(canvas.boxes)]
        labels = torch.from_numpy(self._label[canvas.kinds])
        return {
            "boxes": cells[labels > 0],
            "labels": labels[labels > 0],
            "unknown": boxes[len(canvas.boxes) :],
        }

    def _canvas(self, rng: np.random.Generator) -> Canvas:
        training = self._training
        side = training.canvas_px
        if rng.random() < training.rendered_share:
            return render_canvas(side_px=side, cell_px=self._cell_px(rng), rng=rng)
        number = int(rng.choice(len(self._names), p=self._chances))
        if self._close_chances[number] > 0 and rng.random() < training.tiled_share:
            chances = self._close_chances / self._close_chances.sum()
            drawn = rng.choice(len(self._names), 4, p=chances)
            return tile_canvases([self._part(self._names[n], side // 2, rng) for n in drawn])
        return self._part(self._names[number], side, rng)

    def _part(self, name: str, side_px: int, rng: np.random.Generator) -> Canvas:
        training = self._training
        fields = self._by_laboratory[name]
        field = fields[int(rng.integers(len(fields)))]
        stain = None
        if rng.random() < training.restain_share:
            others = self._by_laboratory[self._names[int(rng.integers(len(self._names)))]]
            stain = others[int(rng.integers(len(others)))].stain
            if rng.random() < training.strange_stain_share:
                stain = vary_stain(stain, rng)
        crop = crop_field(
            field,
            side_px=side_px,
            scale=self._cell_px(rng) / field.cell_px,
            middle=self._entries[name].middle is not None or rng.random() < training.middle_share,
            stain=stain,
            stain_share=float(rng.uniform(0.6, 1.1)),
            background_level=self._settings.background_level,
            rng=rng,
        )
        share = training.pasted_share if self._without_white[name] else training.pasted_share / 4
        if self._donors and rng.random() < share:
            for _ in range(int(rng.integers(1, _MOST_PASTED + 1))):
                donor = self._donors[int(rng.integers(len(self._donors)))]
                crop = paste_cell(crop, donor, rng)
        return crop.canvas

    def _cell_px(self, rng: np.random.Generator) -> float:
        """Draw the side of the median cell on a canvas."""
        low, high = np.log(self._training.scale_range)
        return self._training.cell_canvas_px * float(np.exp(rng.uniform(low, high)))

    def _is_close_up(self, name: str) -> bool:
        cells = [min(f.pixels.shape[:2]) / f.cell_px for f in self._by_laboratory[name]]
        return float(np.median(cells)) < self._training.canvas_px / self._training.cell_canvas_px


def _grouped(fields: Sequence[CellField]) -> Mapping[str, list[CellField]]:
    groups: dict[str, list[CellField]] = {}
    for field in fields:
        groups.setdefault(field.laboratory, []).append(field)
    return groups
