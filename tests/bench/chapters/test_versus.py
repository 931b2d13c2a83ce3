"""Peers: what is left out, what is refused, and what is compared."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import treelite

from rbc_engine.bench.chapters.agreement import agreement
from rbc_engine.bench.chapters.versus import compare_with_peers
from rbc_engine.bench.instruments.fields import BenchFields
from rbc_engine.bench.instruments.stub_engine import stub_engine, stub_regions
from rbc_engine.bench.peers import boosting
from rbc_engine.bench.peers import open as opening
from rbc_engine.bench.peers.base import PeerMissingError
from rbc_engine.bench.peers.boosting import sklearn_caller
from rbc_engine.bench.peers.fp32_graph import as_fp32
from rbc_engine.bench.peers.onnxruntime import OnnxRuntimePeer
from rbc_engine.bench.peers.open import open_peer
from rbc_engine.bench.peers.torch_pipeline import TorchPipeline
from rbc_engine.engine import Engine
from rbc_engine.sources.images.decode import read_image
from rbc_engine.training.fit.caller import train_caller
from rbc_engine.training.networks.restore import restore_classifier, restore_detector
from rbc_engine.types.frames import Decoded, FieldRef, Frame


@pytest.fixture(scope="module")
def sample(repository):
    path = sorted((repository / "samples").rglob("*.jpg"))[0]
    ref = FieldRef(slide="s", field=path.name, path=path)
    frame = Frame(pixels=read_image(path, name=path.name))
    return BenchFields(
        name="sample", decoded=[Decoded(ref=ref, frame=frame)], refs=[ref], bytes=1.0
    )


class _Echo:
    """A peer that finds what the engine finds, but for what `change` does to it."""

    name, precision, description = "echo", "fp32", "an echo"

    def __init__(self, engine, fields, change=lambda regions: regions):
        self._regions = engine.analyze(fields.decoded[0].frame).regions
        self._change = change
        self.closed = False

    def analyze(self, ref):
        return self._change(self._regions)

    def close(self):
        self.closed = True


def _compare(fields, tmp_path, change=None, *, fails=None):
    peers = []

    def open_one(name, pack, *, threads):
        if name == "missing":
            raise PeerMissingError("it is not here")
        peers.append(_Echo(engine, fields) if change is None else _Echo(engine, fields, change))
        return peers[-1]

    with stub_engine(frame_s=0.002, regions=40) as engine:
        report = compare_with_peers(
            engine,
            fields,
            ["missing", "echo"],
            folder=tmp_path,
            repeats=3,
            say=lambda _: None,
            open_one=open_one,
        )
    assert all(peer.closed for peer in peers)
    assert report["missing"] == {"left_out": "it is not here"}
    return report["echo"]


def test_a_peer_that_agrees_is_measured(sample, tmp_path):
    entry = _compare(sample, tmp_path)
    assert entry["agreement"]["found"] == entry["agreement"]["alike"] == 1.0
    assert entry["ratio"] == entry["ratio_spread"]["median"]
    assert entry["ratio_spread"]["n"] == 3
    assert entry["ratio_spread"]["min"] <= entry["ratio"] <= entry["ratio_spread"]["max"]
    # The echo takes no time, and the engine writes tables: engine over peer is far below 1.
    assert entry["ratio"] < 0.5


def _without_some(regions):
    return _taken(regions, slice(0, 36))


def _taken(regions, rows):
    return regions.take(np.arange(len(regions))[rows])


def _other_types(regions):
    has = regions.has.copy()
    has[:8, 0] ^= True
    return replace(regions, has=has)


def _moved(regions):
    return replace(regions, boxes=regions.boxes + np.float32(20))


@pytest.mark.parametrize(
    ("sabotage", "why"),
    [
        (_without_some, "at least 95% must be"),
        (_moved, "at least 95% must be"),
        (_other_types, "have the same types"),
    ],
)
def test_a_sabotaged_peer_is_refused_and_not_timed(sample, tmp_path, sabotage, why):
    entry = _compare(sample, tmp_path, sabotage)
    assert why in entry["refused"]
    assert "ratio" not in entry


def test_a_peer_that_fails_is_left_out(sample, tmp_path):
    def fail(_):
        raise RuntimeError("out of memory")

    assert "RuntimeError: out of memory" in _compare(sample, tmp_path, fail)["left_out"]


def test_agreement_by_hand():
    mine = stub_regions(3, types=2, seed=1)
    boxes = np.array([[0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]], np.float32)
    mine = replace(mine, boxes=boxes)
    theirs = replace(
        mine,
        # The same, shifted to an IoU of 0.54, and to one of 0.43.
        boxes=boxes + np.array([[0], [3], [4]], np.float32) * np.array([1, 0, 1, 0], np.float32),
        has=mine.has ^ np.array([[True, False], [False, False], [True, True]]),
        abnormal=mine.abnormal ^ np.array([False, True, False]),
    )
    got = agreement([mine], [theirs])
    assert (got.regions, got.peer_regions, got.matched) == (3, 3, 2)
    assert (got.same_types, got.same_verdict) == (1, 1)
    assert got.found == pytest.approx(2 / 3)
    assert got.alike == 0.5


def test_agreement_pairs_each_region_once():
    one = stub_regions(1, types=2)
    twice = _taken(one, [0, 0])
    assert agreement([one], [twice]).matched == 1
    none = _taken(one, slice(0, 0))
    assert agreement([none], [none]).problem() is None
    assert agreement([none], [one]).problem() is not None


def test_missing_libraries_are_named(pack, monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "sklearn" else object())
    with pytest.raises(PeerMissingError, match=r"sklearn is not installed; pip install"):
        open_peer("reference", pack, threads=1)


def test_torch_tensorrt_needs_a_gpu(pack, monkeypatch):
    from rbc_engine.bench.peers import torch_tensorrt

    report = SimpleNamespace(problem="no NVIDIA driver")
    monkeypatch.setattr(torch_tensorrt, "ask_driver", lambda: report)
    with pytest.raises(PeerMissingError, match="needs a GPU: no NVIDIA driver"):
        open_peer("torch-tensorrt", pack, threads=1)


def test_caller_in_scikit_learn_is_the_one_that_was_trained():
    """Of trees of several levels, against the scikit-learn model that the checkpoint was made
    of.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    rng = np.random.default_rng(3)
    x = rng.random((400, 5)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0.8).astype(int)
    trained = GradientBoostingClassifier(n_estimators=12, max_depth=3, random_state=0).fit(x, y)
    checkpoint = treelite.sklearn.import_model(trained).serialize_bytes()
    restored = sklearn_caller(SimpleNamespace(read=lambda _: checkpoint))
    fresh = rng.random((1000, 5)).astype(np.float32)
    np.testing.assert_allclose(
        restored.predict_proba(fresh), trained.predict_proba(fresh), rtol=0, atol=1e-9
    )


def test_caller_that_differs_is_refused(pack, monkeypatch):
    regressor = boosting._regressor
    monkeypatch.setattr(
        boosting,
        "_regressor",
        lambda tree, features, *, add, scale: regressor(tree, features, add=0.0, scale=scale),
    )
    checkpoint, _ = train_caller(
        np.random.default_rng(0).random((200, 4), np.float32),
        np.arange(200) % 5 > 0,
        np.array([str(i % 4) for i in range(200)]),
        seed=0,
    )
    with pytest.raises(PeerMissingError, match="differs from treelite's"):
        sklearn_caller(SimpleNamespace(read=lambda _: checkpoint))


def test_graph_in_fp32_has_no_fp16_left(pack):
    graph = onnx.load_model_from_string(as_fp32(pack.read("box_head.onnx"))).graph
    assert {tensor.data_type for tensor in graph.initializer} <= {
        onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    }  # fmt: skip
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


@pytest.mark.slow
def test_peers_agree_with_the_engine_in_fp32(pack, sample):
    """The reference pipeline and ONNX Runtime find what the engine finds on a rendered sample."""
    with Engine.open("chula12", device="cpu", precision="fp32") as engine:
        mine = engine.analyze(sample.decoded[0].frame).regions
    classifier = restore_classifier(pack)
    reference = TorchPipeline(
        pack,
        detector=restore_detector(pack),
        classify=lambda patches: classifier(patches)[1],
        caller=sklearn_caller(pack),
    )
    runtime = OnnxRuntimePeer(pack, threads=2)
    for peer in (reference, runtime):
        theirs = peer.analyze(sample.refs[0])
        got = agreement([mine], [theirs])
        assert got.regions >= 10
        assert got.found >= 0.95
        assert got.alike >= 0.95
        assert got.same_verdict >= 0.95 * got.matched
    runtime.close()
