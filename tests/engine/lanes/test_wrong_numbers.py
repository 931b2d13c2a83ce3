"""Networks that give NaN, infinity or probabilities outside 0..1: that field fails, and no other."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from rbc_engine.devices.cpu.device import HostDevice, HostNetwork
from rbc_engine.lanes.lane import Lane
from rbc_engine.lanes.stages.call import Caller
from rbc_engine.lanes.stages.field_prior import FieldPrior
from rbc_engine.lanes.stages.finite import all_finite, outside_unit
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Decoded, FieldRef, Frame

FIELDS = ("a.jpg", "b.jpg")


@pytest.fixture(scope="module")
def pack():
    return Pack.open(find_pack("chula12"))


@pytest.fixture(scope="module")
def batch():
    return [
        Decoded(
            ref=FieldRef(slide="s", field=name, path=Path(name)),
            frame=Frame(
                pixels=render_field(seed=seed, width=320, height=240, cells=12).pixels, field=name
            ),
        )
        for seed, name in enumerate(FIELDS)
    ]


@pytest.fixture(scope="module")
def lane(pack):
    with HostDevice(precision="fp32", lanes=1, threads=1) as device:
        yield Lane(
            device,
            pack,
            Caller(pack),
            batch_frames=2,
            batch_patches=(8,),
            threads=1,
            meter=Meter(),
            estimate_scale=True,
            field_prior=FieldPrior.of(pack.manifest.classifier),
        )


@pytest.fixture(scope="module")
def right(lane, batch):
    return lane.analyze(batch)


def analyse_damaged(lane, batch, output, damage):
    """The results if the first frame's share of an output, on which damage works, is not as it should be."""
    run = HostNetwork.__call__

    def damaged(self, inputs):
        outputs = dict(run(self, inputs))
        if output in outputs:
            outputs[output] = outputs[output].copy()
            damage(outputs[output])
        return outputs

    with mock.patch.object(HostNetwork, "__call__", damaged):
        return lane.analyze(batch)


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("objectness_0", np.nan),
        ("objectness_3", -np.inf),
        ("deltas_1", np.nan),
        ("class_logits", np.inf),
        ("class_logits", np.nan),
        ("box_deltas", np.nan),
    ],
)
def test_a_detector_without_numbers_fails_its_field_only(lane, batch, right, output, number):
    def damage(values):
        values.reshape(-1)[len(values) // 2 if output in ("class_logits", "box_deltas") else 3] = (
            number
        )

    def of_first(values):
        damage(values[: len(values) // 2])

    first, second = analyse_damaged(lane, batch, output, of_first)
    assert first.regions is None
    assert first.error is not None
    assert first.error.startswith("a.jpg: ")
    assert output in first.error
    assert second.ok
    np.testing.assert_array_equal(second.regions.boxes, right[1].regions.boxes)
    np.testing.assert_array_equal(second.regions.probabilities, right[1].regions.probabilities)


@pytest.mark.parametrize("number", [np.nan, -0.01])
def test_a_classifier_outside_0_to_1_fails_its_field_only(lane, batch, right, number):
    def damage(values):
        values[2, 5] = number

    (first,) = analyse_damaged(lane, batch[:1], "probabilities", damage)
    assert first.regions is None
    assert "a probability of the classifier must be within 0..1" in first.error
    done = [False]

    def once(values):
        if not done[0]:
            damage(values)
        done[0] = True

    _, second = analyse_damaged(lane, batch, "probabilities", once)
    assert second.ok
    np.testing.assert_allclose(second.regions.abnormal_p, right[1].regions.abnormal_p, atol=1e-6)


def test_a_caller_outside_0_to_1_fails_its_field(lane, batch):
    with mock.patch.object(Caller, "__call__", lambda self, p: np.full(len(p), 1.5, np.float32)):
        results = lane.analyze(batch)
    assert [result.regions for result in results] == [None, None]
    assert all("abnormal_p must be within 0..1 (got 1.5)" in result.error for result in results)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_finds_what_is_not_finite_wherever_it_is(dtype):
    rng = np.random.default_rng(1)
    array = rng.normal(0, 1e4, (5, 7)).astype(dtype)
    array[0, 0] = np.finfo(dtype).max
    assert all_finite(array)
    for number in (np.nan, np.inf, -np.inf):
        for at in np.ndindex(array.shape):
            damaged = array.copy()
            damaged[at] = number
            assert not all_finite(damaged)
            assert not all_finite(damaged.T)
    assert all_finite(array[:0])
    assert outside_unit("p", np.array([0.0, 1.0], dtype)) is None
