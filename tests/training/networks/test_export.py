"""The exported graphs, run by OpenVINO in float32, against the modules that they came from."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from rbc_engine.devices.cpu.device import HostDevice
from rbc_engine.packs.graphs.onnx_file import read_graph
from rbc_engine.packs.graphs.onnx_shapes import follow_shapes
from rbc_engine.training.networks.export import export_classifier, fold_batchnorm
from rbc_engine.training.networks.models import Classifier

from ..conftest import ExportedDetector, with_float16_weights

# Float32 sums in another order; values here are of the order of 1.
TOLERANCE = 1e-4


def classifier(*, types: int) -> Classifier:
    """Random weights, and the BatchNorm statistics of random patches, so that activations neither
    die nor explode.
    """
    torch.manual_seed(types)
    model = Classifier(types=types, trunk="resnet18", hidden=32).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over all patches seen
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 96, 160), (4, 64, 96)])
def test_network_a_equals_torch(
    detector: ExportedDetector, device: HostDevice, frames: int, height: int, width: int
):
    canvas = torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8)
    model = detector.reference
    mean = torch.tensor(model.transform.image_mean)
    std = torch.tensor(model.transform.image_std)
    with torch.no_grad():
        features = list(model.backbone(((canvas / 255 - mean) / std).permute(0, 3, 1, 2)).values())
        objectness, deltas = model.rpn.head(features)
    expected = {f"objectness_{level}": array for level, array in enumerate(objectness)}
    expected |= {f"deltas_{level}": array for level, array in enumerate(deltas)}
    expected |= {f"features_{level}": array for level, array in enumerate(features[:3])}

    network = device.load(
        detector.network_a, outputs=sorted(expected), shapes={"canvas": tuple(canvas.shape)}
    )
    got = network({"canvas": canvas.numpy()})

    assert got.keys() == expected.keys()
    for name, array in expected.items():
        torch.testing.assert_close(torch.from_numpy(got[name]), array, rtol=1e-4, atol=TOLERANCE)


def test_the_mean_colour_reads_as_zero(detector: ExportedDetector, device: HostDevice):
    """As what torchvision pads with, but for the rounding of a fused multiply and add."""
    graph = onnx.load_from_string(detector.network_a)
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    inner = onnx.helper.make_tensor_value_info(first.input[0], onnx.TensorProto.FLOAT16, None)
    graph.graph.output.append(inner)
    network = device.load(
        graph.SerializeToString(), outputs=[first.input[0]], shapes={"canvas": (1, 32, 32, 3)}
    )
    canvas = torch.tensor(detector.settings.mean_rgb, dtype=torch.uint8).expand(1, 32, 32, 3)
    normalised = network({"canvas": canvas.contiguous().numpy()})[first.input[0]]
    assert normalised.shape == (1, 3, 32, 32)
    assert abs(normalised).max() < 1e-6


@pytest.mark.parametrize("regions", [1, 5])
def test_network_b_equals_torch(detector: ExportedDetector, device: HostDevice, regions: int):
    heads = detector.reference.roi_heads
    roi_features = torch.randn(regions, 32, 7, 7)
    with torch.no_grad():
        logits, deltas = heads.box_predictor(heads.box_head(roi_features))
    network = device.load(
        detector.network_b,
        outputs=["class_logits", "box_deltas"],
        shapes={"roi_features": tuple(roi_features.shape)},
    )
    got = network({"roi_features": roi_features.numpy()})
    assert got["class_logits"].shape == (regions, 2)
    assert got["box_deltas"].shape == (regions, 8)
    for name, expected in {"class_logits": logits, "box_deltas": deltas}.items():
        torch.testing.assert_close(torch.from_numpy(got[name]), expected, rtol=1e-4, atol=TOLERANCE)


@pytest.mark.parametrize("types", [3, 12])
def test_classifier_equals_torch(device: HostDevice, types: int):
    model = classifier(types=types)
    graph = export_classifier(model, patch_px=48)
    reference = with_float16_weights(model)
    for regions in (1, 4):
        patches = torch.randn(regions, 3, 48, 48)
        with torch.no_grad():
            feature_map, logits = reference(patches)
        network = device.load(
            graph,
            outputs=["feature_map", "probabilities"],
            shapes={"patches": tuple(patches.shape)},
        )
        got = network({"patches": patches.numpy()})
        work = follow_shapes(read_graph(graph), {"patches": tuple(patches.shape)})
        assert work.shapes == {name: array.shape for name, array in got.items()}
        assert got["probabilities"].shape == (regions, types)
        assert float(logits.std()) > 0.05  # or any probabilities near 0.5 would pass
        torch.testing.assert_close(
            torch.from_numpy(got["probabilities"]), logits.sigmoid(), rtol=0, atol=TOLERANCE
        )
        torch.testing.assert_close(
            torch.from_numpy(got["feature_map"]), feature_map, rtol=1e-3, atol=1e-3
        )
    _check_heads_by_type(graph, model)


def test_temperatures_divide_the_logits(device: HostDevice):
    model = classifier(types=3)
    before = [weight.clone() for weight in model.parameters()]
    temperatures = (0.5, 1.0, 2.0)
    graph = export_classifier(model, patch_px=48, temperatures=temperatures)
    patches = torch.randn(4, 3, 48, 48)
    with torch.no_grad():
        _, logits = with_float16_weights(model)(patches)
    network = device.load(graph, outputs=["probabilities"], shapes={"patches": (4, 3, 48, 48)})
    got = torch.from_numpy(network({"patches": patches.numpy()})["probabilities"])
    expected = (logits / torch.tensor(temperatures)).sigmoid()
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)
    assert not torch.allclose(expected, logits.sigmoid(), atol=10 * TOLERANCE)
    for weight, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old, rtol=0, atol=0)


def _check_heads_by_type(graph: bytes, model: Classifier) -> None:
    """The heads' weights stand in the graph under their names, laid out as the fused kernel reads
    them.
    """
    arrays = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load_from_string(graph).graph.initializer
    }
    for name, parameter in model.head.named_parameters():
        assert torch.equal(arrays[f"model.head.{name}"], parameter.detach().half()), name


def test_heads_are_independent_networks():
    """Each type's logit is that of a network of its own: features -> hidden -> 1."""
    model = classifier(types=3)
    features = torch.randn(5, model.features)
    head = model.head
    with torch.no_grad():
        got = head(features)
        for kind in range(3):
            rows = slice(32 * kind, 32 * (kind + 1))
            hidden = torch.relu(features @ head.first.weight[rows].T + head.first.bias[rows])
            expected = hidden @ head.second.weight[kind, :, 0, 0] + head.second.bias[kind]
            torch.testing.assert_close(got[:, kind], expected)


def test_folding_batchnorm_changes_nothing():
    model = classifier(types=2)
    patches = torch.randn(2, 3, 48, 48)
    folded = fold_batchnorm(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(patches), model(patches), rtol=1e-3, atol=1e-4)


def test_folding_refuses_a_batchnorm_without_a_convolution():
    with pytest.raises(ValueError, match="no convolution before it"):
        fold_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))


# TensorRT's parser refuses these, or takes them only for shapes that it knows.
REFUSED = {"NonMaxSuppression", "NonZero", "TopK", "RoiAlign", "Loop", "If", "BatchNormalization"}


def test_graphs_are_plain_and_typed_float16(detector: ExportedDetector):
    for graph in (detector.network_a, detector.network_b):
        model = onnx.load_from_string(graph)
        operators = {node.op_type for node in model.graph.node}
        assert not operators & REFUSED
        assert {opset.domain for opset in model.opset_import} == {""}
        weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
        floats = {tensor.name for tensor in weights if tensor.data_type == onnx.TensorProto.FLOAT}
        first = next((n for n in model.graph.node if n.op_type == "Cast"), None)
        assert len(floats) == (0 if first is None else 2), "only the mean and the scale are float32"
        assert {output.type.tensor_type.elem_type for output in model.graph.output} == {
            onnx.TensorProto.FLOAT16
        }


def test_graphs_hold_nothing_of_the_machine_they_were_made_on(detector: ExportedDetector):
    for graph in (detector.network_a, detector.network_b):
        assert b"stack_trace" not in graph
        assert b".py" not in graph
