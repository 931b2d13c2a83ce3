"""Compare the three networks in each precision with PyTorch and ONNX Runtime, on one thread."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from rbc_engine.bench.peers.fp32_graph import as_fp32
from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.errors import UsageError
from rbc_engine.packs.networks import network_of
from rbc_engine.packs.pack import Pack
from rbc_engine.training.networks.restore import restore_classifier, restore_detector

_INPUTS = {
    "detector.onnx": ("canvas", (1, 320, 448, 3)),
    "box_head.onnx": ("roi_features", None),
    "classifier.onnx": ("patches", None),
}
_OUTPUTS = {
    "detector.onnx": ["features_0", "objectness_0", "deltas_0"],
    "box_head.onnx": ["class_logits", "box_deltas"],
    "classifier.onnx": ["probabilities"],
}
_PATCHES = 16


def _example(pack: Pack, name: str) -> tuple[str, np.ndarray]:
    detector, classifier = pack.manifest.detector, pack.manifest.classifier
    input_name, shape = _INPUTS[name]
    if name == "box_head.onnx":
        shape = (
            detector.proposals,
            detector.feature_channels,
            detector.roi_size,
            detector.roi_size,
        )
    if name == "classifier.onnx":
        shape = (_PATCHES, 3, classifier.patch_px, classifier.patch_px)
    assert shape is not None
    rng = np.random.default_rng(0)
    if input_name == "canvas":
        return input_name, rng.integers(0, 256, shape, np.uint8)
    return input_name, rng.normal(0, 1, shape).astype(np.float32)


@pytest.fixture(params=_INPUTS)
def network(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> str:
    name: str = request.param
    benchmark.group = f"network {name}"
    return name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_engine(benchmark: BenchmarkFixture, pack: Pack, network: str, precision: str) -> None:
    try:
        opened = HostDevice(precision=precision, threads=1)
    except UsageError as error:
        pytest.skip(str(error))
    name, array = _example(pack, network)
    with opened as device:
        loaded = device.load(
            network_of(pack, network, precision=precision),
            outputs=_OUTPUTS[network],
            shapes={name: array.shape},
        )
        benchmark(loaded, {name: array})


def test_onnxruntime(benchmark: BenchmarkFixture, pack: Pack, network: str) -> None:
    name, array = _example(pack, network)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        as_fp32(pack.read(network)), options, providers=["CPUExecutionProvider"]
    )
    benchmark(session.run, _OUTPUTS[network], {name: array})


def test_torch(benchmark: BenchmarkFixture, pack: Pack, network: str) -> None:
    _, array = _example(pack, network)
    run: Callable[[torch.Tensor], object]
    if network == "classifier.onnx":
        run = restore_classifier(pack)
    else:
        detector = restore_detector(pack)
        if network == "box_head.onnx":
            heads = detector.roi_heads
            run = lambda x: heads.box_predictor(heads.box_head(x))  # noqa: E731
        else:
            array = array.transpose(0, 3, 1, 2).astype(np.float32)
            run = lambda x: detector.rpn.head(list(detector.backbone(x).values()))  # noqa: E731
    benchmark(run, torch.from_numpy(np.ascontiguousarray(array)))
