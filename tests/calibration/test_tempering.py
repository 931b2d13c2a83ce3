"""A tempered pack: other numbers, the same decisions, all of it through the engine's own stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import load_model_from_string, numpy_helper

from rbc_engine.calibration.tempering import temper, temper_pack
from rbc_engine.devices.host import HostDevice
from rbc_engine.errors import PackError
from rbc_engine.golden import read_golden
from rbc_engine.pack import Pack, find_pack
from rbc_engine.stages.call import Caller, types_held


@pytest.fixture(scope="module")
def pack() -> Pack:
    """The shipped pack as if it had not been tempered."""
    from dataclasses import replace

    opened = Pack.open(find_pack("chula12"))
    settings = opened.manifest.classifier.model_copy(update={"temperatures": None})
    return replace(opened, manifest=opened.manifest.model_copy(update={"classifier": settings}))


TEMPERATURES = np.linspace(0.5, 2.5, 12)


@pytest.fixture(scope="module")
def tempered(pack: Pack) -> Pack:
    return temper_pack(pack, TEMPERATURES.tolist(), caller_temperature=0.8)


def test_a_logit_is_divided() -> None:
    logits = np.linspace(-8, 8, 60).reshape(5, 12)
    p = torch.tensor(logits).sigmoid().numpy().astype(np.float32)
    expected = torch.tensor(logits / TEMPERATURES).sigmoid().numpy()
    np.testing.assert_allclose(temper(p, TEMPERATURES), expected, atol=2e-4)


def test_the_network_gives_tempered_probabilities(pack: Pack, tempered: Pack) -> None:
    side = pack.manifest.classifier.patch_px
    patches = np.random.default_rng(0).standard_normal((8, 3, side, side)).astype(np.float32)

    def probabilities(of: Pack) -> np.ndarray:
        with HostDevice(precision="fp32") as device:
            network = device.load(
                of.read("classifier.onnx"),
                outputs=["probabilities"],
                shapes={"patches": patches.shape},
            )
            return network({"patches": patches})["probabilities"].copy()

    np.testing.assert_allclose(
        probabilities(tempered), temper(probabilities(pack), TEMPERATURES), atol=3e-3
    )


def test_no_decision_changes(pack: Pack, tempered: Pack) -> None:
    before = np.random.default_rng(1).random((20_000, 12), np.float32)
    after = temper(before, TEMPERATURES)
    assert np.abs(before - after).max() > 0.1
    # Without at_least_one: of several types under their thresholds the likeliest may be another.
    bare = [
        of.manifest.classifier.model_copy(update={"at_least_one": False}) for of in (pack, tempered)
    ]
    same = types_held(before, settings=bare[0]) == types_held(after, settings=bare[1])
    assert same.mean() > 1 - 1e-5
    p_before, p_after = Caller(pack)(before), Caller(tempered)(after)
    np.testing.assert_allclose(p_after, temper(p_before, np.array(0.8)), atol=1e-5)
    assert ((p_before >= 0.5) == (p_after >= 0.5)).all()


def test_golden_answers_go_along(pack: Pack, tempered: Pack) -> None:
    for old, new in zip(
        read_golden(pack.read("golden.npz")), read_golden(tempered.read("golden.npz")), strict=True
    ):
        assert (old.frame == new.frame).all()
        assert (old.expected.boxes == new.expected.boxes).all()
        np.testing.assert_allclose(
            new.expected.probabilities, temper(old.expected.probabilities, TEMPERATURES)
        )


def test_only_the_last_layer_changes(pack: Pack, tempered: Pack) -> None:
    def weights(of: Pack) -> dict[str, np.ndarray]:
        graph = load_model_from_string(of.read("classifier.onnx")).graph
        return {t.name: numpy_helper.to_array(t) for t in graph.initializer}

    old, new = weights(pack), weights(tempered)
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"model.head.second.weight", "model.head.second.bias"}


@pytest.mark.parametrize("temperatures", [[1.0] * 11, [1.0] * 11 + [0.0], [1.0] * 11 + [-1.0]])
def test_wrong_temperatures(pack: Pack, temperatures) -> None:
    with pytest.raises(PackError, match="12 numbers > 0"):
        temper_pack(pack, temperatures)


def test_twice_is_refused(tempered: Pack) -> None:
    with pytest.raises(PackError, match="tempered already"):
        temper_pack(tempered, TEMPERATURES.tolist())
