"""What the detector of cells is drawn: boxes that stay on their cells, stains changed as asked,
steps that repeat.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rbc_engine.training.datasets.laboratories.base import (
    PLATELET,
    RED,
    WHITE_CELL,
    CellField,
    Stain,
    overlap,
)
from rbc_engine.training.datasets.laboratories.collection import find_collection
from rbc_engine.training.datasets.laboratories.load import load_fields
from rbc_engine.training.datasets.laboratories.stain import stained_field
from rbc_engine.training.fit.cells.drawn_canvas import crop_field, render_canvas, tile_canvases
from rbc_engine.training.fit.cells.draws import CellDraws
from rbc_engine.training.fit.cells.paste import find_donors, paste_cell
from rbc_engine.training.fit.cells.training_options import CellDetectorTraining
from rbc_engine.training.fit.restain import restain_field, restain_patches
from rbc_engine.training.fit.steps.prefetch import Prefetch
from rbc_engine.training.packing.cell_recipe import CELL_KINDS, CELL_RECIPE

from .fake_laboratories import close_up, write_laboratories

SETTINGS = CELL_RECIPE.detector
TRAINING = CellDetectorTraining(batch=4, canvas_px=128, seed=3)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("laboratories")
    collection = find_collection(str(write_laboratories(folder, smears=2)))
    return load_fields(collection.to_train(), folder, threads=1, log=lambda line: None)


def discs(*, side: int = 200, radius: float = 15.0, level: int = 90) -> CellField:
    """Dark discs on a light ground, at known places."""
    pixels = np.full((side, side, 3), 210, np.uint8)
    y, x = np.mgrid[:side, :side] + 0.5
    boxes = []
    for cx, cy in ((40.0, 50.0), (120.0, 60.0), (70.0, 140.0), (150.0, 150.0)):
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = level
        boxes.append([cx - radius, cy - radius, cx + radius, cy + radius])
    return CellField(
        laboratory="discs",
        path=Path("discs.png"),
        group="discs",
        pixels=pixels,
        boxes=np.array(boxes, np.float32),
        kinds=np.array([RED, RED, RED, WHITE_CELL], np.uint8),
        unknown=np.zeros((0, 4), np.float32),
        cell_px=2 * radius,
        stain=Stain(
            background=np.full(3, 210, np.float32),
            density=np.full(3, np.log(210 / level), np.float32),
        ),
    )


def crop(field: CellField, rng, **changes):
    options = {
        "side_px": 128,
        "scale": 1.0,
        "middle": False,
        "stain": None,
        "stain_share": 1.0,
        "background_level": None,
    }
    return crop_field(field, rng=rng, **(options | changes))


def dark_boxes(pixels: np.ndarray, below: float) -> np.ndarray:
    from scipy import ndimage

    labels, _ = ndimage.label(pixels.mean(axis=2) < below)
    return np.array(
        [[x.start, y.start, x.stop, y.stop] for y, x in ndimage.find_objects(labels)], np.float32
    ).reshape(-1, 4)


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
def test_boxes_stay_on_their_cells(scale: float):
    field = discs()
    for seed in range(6):
        cut = crop(field, np.random.default_rng(seed), scale=scale)
        seen = cut.canvas.pixels[: cut.height, : cut.width]
        found = dark_boxes(seen, below=150)
        boxes = np.concatenate([cut.canvas.boxes, cut.canvas.unknown])
        assert cut.cell_px == pytest.approx(30 * scale)
        size = np.array([cut.width, cut.height])
        for one, others in ((found, boxes), (cut.canvas.boxes, found)):
            whole = (one[:, :2] > 1).all(axis=1) & (one[:, 2:] < size - 1).all(axis=1)
            assert (overlap(one, others).max(axis=1)[whole] > 0.8).all()


def test_a_cut_cell_is_unknown():
    field = discs()
    kinds = set()
    for seed in range(40):
        cut = crop(field, np.random.default_rng(seed), scale=2.0)
        for box in cut.canvas.unknown:
            touches = (box[:2] <= 0).any() or (box[2:] >= 128).any()
            assert touches
            assert np.prod(box[2:] - box[:2]) < 0.26 * 60**2
        kinds |= set(cut.canvas.kinds.tolist())
    assert kinds == {RED, WHITE_CELL}


def test_restained_fields_have_the_other_stain():
    source = close_up(5, white=False)[0]
    target = (close_up(6, white=False)[0] * np.array([0.9, 0.7, 0.8])).astype(np.uint8)
    have, want = stained_field(source).stain, stained_field(target).stain
    changed, now = restain_field(source, have, want, 1.0)
    np.testing.assert_allclose(now.background, want.background, rtol=1e-5)
    np.testing.assert_allclose(now.density, want.density, rtol=1e-5)
    measured = stained_field(changed).stain
    np.testing.assert_allclose(measured.background, want.background, atol=2)
    np.testing.assert_allclose(measured.density, want.density, rtol=0.12, atol=0.02)
    same, _ = restain_field(source, have, want, 0.0)
    assert np.abs(same.astype(int) - source).max() <= 1


def test_patches_are_restained_as_fields_are():
    rng = np.random.default_rng(0)
    levels = rng.integers(20, 240, (2, 8, 8, 3)).astype(np.uint8)
    have = Stain(
        background=np.array([220, 200, 210], np.float32),
        density=np.array([0.2, 0.5, 0.3], np.float32),
    )
    want = Stain(
        background=np.array([200, 220, 150], np.float32),
        density=np.array([0.4, 0.4, 0.5], np.float32),
    )
    mean, std = (120.0, 130.0, 140.0), (40.0, 50.0, 60.0)
    patches = (torch.from_numpy(levels).float() - torch.tensor(mean)) / torch.tensor(std)
    out = restain_patches(
        patches.permute(0, 3, 1, 2),
        (np.stack([have.background] * 2), np.stack([have.density] * 2)),
        (np.stack([want.background] * 2), np.stack([want.density] * 2)),
        np.array([1.0, 0.5], np.float32),
        mean_rgb=mean,
        std_rgb=std,
    )
    back = out.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    for image, share, got in zip(levels, (1.0, 0.5), back.numpy(), strict=True):
        expected, _ = restain_field(image, have, want, share)
        np.testing.assert_allclose(got, expected, atol=0.51)


def test_a_pasted_cell_is_boxed_where_it_is():
    field = discs()
    donor = find_donors([field])
    assert [(d.index, d.field.kinds[d.index]) for d in donor] == [(3, WHITE_CELL)]
    empty = replace(
        field,
        pixels=np.full_like(field.pixels, 210),
        boxes=field.boxes[:0],
        kinds=field.kinds[:0],
    )
    pasted = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        before = crop(empty, rng)
        after = paste_cell(before, donor[0], rng)
        found = dark_boxes(after.canvas.pixels, below=170)
        pasted += len(found)
        assert len(after.canvas.boxes) <= 1
        assert after.canvas.kinds.tolist() == [WHITE_CELL] * len(after.canvas.boxes)
        if len(found) and min(found[0][2:] - found[0][:2]) > 8:
            assert overlap(after.canvas.boxes, found).max() > 0.75
    assert pasted >= 8


def test_what_a_pasted_cell_hides_is_no_cell():
    field = discs()
    donor = find_donors([field])[0]
    pasted = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        before = crop(field, rng)
        after = paste_cell(before, donor, rng)
        if after is before:
            continue
        pasted += 1
        new = after.canvas.boxes[-1]
        for box, kind in zip(after.canvas.boxes[:-1], after.canvas.kinds[:-1], strict=True):
            shared = np.clip(np.minimum(box[2:], new[2:]) - np.maximum(box[:2], new[:2]), 0, None)
            assert shared.prod() <= 0.26 * (box[2:] - box[:2]).prod()
            assert kind in (RED, WHITE_CELL)
    assert pasted


def test_four_canvases_keep_their_boxes():
    rng = np.random.default_rng(0)
    parts = [crop(discs(), rng, side_px=64).canvas for _ in range(4)]
    whole = tile_canvases(parts)
    assert whole.pixels.shape == (128, 128, 3)
    np.testing.assert_array_equal(whole.pixels[64:, :64], parts[2].pixels)
    counts = np.cumsum([len(part.boxes) for part in parts])
    np.testing.assert_array_equal(
        whole.boxes[counts[1] : counts[2]], parts[2].boxes + np.array([0, 64, 0, 64])
    )


def test_rendered_cells_are_boxed_one_by_one():
    rng = np.random.default_rng(0)
    canvases = [render_canvas(side_px=128, cell_px=24.0, rng=rng) for _ in range(5)]
    boxes = np.concatenate([canvas.boxes for canvas in canvases])
    assert len(boxes) > 5
    assert np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))) < 34
    assert all((canvas.kinds == RED).all() for canvas in canvases)


def test_the_batch_of_a_step_is_the_same_wherever_it_begins(loaded):
    draws = CellDraws(
        loaded.fields, loaded.entries, kinds=CELL_KINDS, settings=SETTINGS, training=TRAINING
    )
    with Prefetch(draws.batch, steps=4) as whole:
        batches = [whole(step) for step in range(4)]
    torch.manual_seed(99)
    with Prefetch(draws.batch, steps=4) as resumed:
        again = [resumed(step) for step in (2, 3)]
    for (images, targets), (images2, targets2) in zip(batches[2:], again, strict=True):
        assert torch.equal(images, images2)
        for one, other in zip(targets, targets2, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(batches[0][0], batches[1][0])


def test_batches_hold_every_kind_and_lie_on_the_canvas(loaded):
    draws = CellDraws(
        loaded.fields, loaded.entries, kinds=CELL_KINDS, settings=SETTINGS, training=TRAINING
    )
    labels = set()
    for step in range(12):
        images, targets = draws.batch(step)
        assert images.shape == (4, 3, 128, 128)
        assert 0 <= images.min() <= images.max() <= 1
        for target in targets:
            for name in ("boxes", "unknown"):
                boxes = target[name]
                assert boxes.dtype == torch.float32
                assert (boxes >= -1e-3).all()
                assert (boxes <= 128.001).all()
                assert (boxes[:, 2:] >= boxes[:, :2]).all()
            assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
            labels |= set(target["labels"].tolist())
    assert labels == {1, 2, 3}
    only_red = CellDraws(
        loaded.fields, loaded.entries, kinds=("red",), settings=SETTINGS, training=TRAINING
    )
    found = [target["labels"] for step in range(4) for target in only_red.batch(step)[1]]
    assert set(torch.cat(found).tolist()) == {1}


def test_laboratories_without_white_cells_alone_are_fine(loaded):
    fields = [field for field in loaded.fields if field.laboratory == "plain"]
    assert not find_donors(fields)
    draws = CellDraws(
        fields, loaded.entries, kinds=CELL_KINDS, settings=SETTINGS, training=TRAINING
    )
    labels = [target["labels"] for step in range(3) for target in draws.batch(step)[1]]
    assert set(torch.cat(labels).tolist()) == {1}


def test_a_fault_while_drawing_ahead_is_raised():
    def draw(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    with Prefetch(draw, steps=5) as batches:
        assert [batches(0), batches(1)] == [0, 1]
        with pytest.raises(ValueError, match="step 2"):
            batches(2)
        assert batches(3) == 3
    assert PLATELET not in (RED, WHITE_CELL)
