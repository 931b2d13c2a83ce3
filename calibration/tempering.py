"""Temperatures put into a pack: every probability of a type is divided by one in its logit.

Nothing is decided otherwise. The thresholds of the types and of the caller's trees go with the probabilities, so that
every region keeps its types and its verdict; only the numbers p_<type> become shares. Where a threshold lies within
float32 rounding of a probability, that one may fall to the other side.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import treelite
from onnx import numpy_helper

from rbc_engine.errors import PackError
from rbc_engine.golden import GoldenCase, encode_golden, read_golden
from rbc_engine.manifest import FILES, FileRecord
from rbc_engine.pack import Pack
from rbc_engine.types import Float32

__all__ = ["temper", "temper_pack"]

_LAST_LAYER = ("model.head.second.weight", "model.head.second.bias")
# Nearer to 0 or 1 the float32 has no logit worth the name.
_NEAREST = 1e-9


def temper_pack(
    pack: Pack, temperatures: Sequence[float], *, caller_temperature: float = 1.0
) -> Pack:
    """The pack with its probabilities tempered, in memory alone.

    temperatures: T numbers > 0. caller_temperature: divides the sum of the caller's trees.

    Raises PackError if the pack is tempered already, or its files are not those of this program's export.
    """
    settings = pack.manifest.classifier
    if settings.temperatures is not None:
        raise PackError(f"pack {pack.name} is tempered already; temper the pack that it came from")
    factors = np.asarray(temperatures, np.float64)
    if factors.shape != (len(pack.types),) or not (factors > 0).all():
        raise PackError(
            f"temperatures must be {len(pack.types)} numbers > 0 (got {list(temperatures)})"
        )
    thresholds = tuple(
        _temper_one(threshold, factor)
        for threshold, factor in zip(settings.thresholds, factors, strict=True)
    )
    classifier = settings.model_copy(
        update={
            "thresholds": thresholds,
            "temperatures": tuple(float(factor) for factor in factors),
        }
    )
    files = {name: pack.read(name) for name in FILES}
    files["classifier.onnx"] = _temper_network(files["classifier.onnx"], factors)
    files["caller.treelite"] = _temper_caller(files["caller.treelite"], factors, caller_temperature)
    files["golden.npz"] = _temper_golden(files["golden.npz"], factors, caller_temperature)
    records = {
        name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in files.items()
    }
    manifest = pack.manifest.model_copy(update={"classifier": classifier, "files": records})
    return replace(pack, manifest=manifest, _files=files, calibration=None)


def temper(probabilities: Float32, temperatures: npt.NDArray[np.float64]) -> Float32:
    """Probabilities [R, T] with their logits divided by temperatures [T]."""
    p = np.clip(probabilities.astype(np.float64), _NEAREST, 1 - _NEAREST)
    logits = np.log(p) - np.log1p(-p)
    return np.asarray(1.0 / (1.0 + np.exp(-logits / temperatures)), np.float32)


def _temper_one(probability: float, temperature: float) -> float:
    if not 0 < probability < 1:
        return probability
    logit = math.log(probability) - math.log1p(-probability)
    return 1.0 / (1.0 + math.exp(-logit / temperature))


def _temper_network(data: bytes, temperatures: npt.NDArray[np.float64]) -> bytes:
    model = onnx.load_model_from_string(data)
    found = 0
    for tensor in model.graph.initializer:
        if tensor.name in _LAST_LAYER:
            values = numpy_helper.to_array(tensor)
            shape = (-1, *[1] * (values.ndim - 1))
            scaled = values.astype(np.float64) / temperatures.reshape(shape)
            tensor.CopyFrom(numpy_helper.from_array(scaled.astype(values.dtype), tensor.name))
            found += 1
    if found != len(_LAST_LAYER):
        raise PackError(
            f"classifier.onnx has no weights {', '.join(_LAST_LAYER)}; export the pack again"
        )
    return bytes(model.SerializeToString())


def _temper_caller(
    data: bytes, temperatures: npt.NDArray[np.float64], caller_temperature: float
) -> bytes:
    model = treelite.Model.deserialize_bytes(data)
    for index in range(model.num_tree):
        tree = model.get_tree_accessor(index)
        features = tree.get_field("split_index")
        thresholds = tree.get_field("threshold").copy()
        for node in np.flatnonzero(tree.get_field("cleft") >= 0).tolist():
            thresholds[node] = _temper_one(
                float(thresholds[node]), float(temperatures[features[node]])
            )
        tree.set_field("threshold", thresholds)
    header = model.get_header_accessor()
    alpha = header.get_field("sigmoid_alpha")
    header.set_field("sigmoid_alpha", (alpha / caller_temperature).astype(alpha.dtype))
    return bytes(model.serialize_bytes())


def _temper_golden(
    data: bytes, temperatures: npt.NDArray[np.float64], caller_temperature: float
) -> bytes:
    cases = []
    for case in read_golden(data):
        expected = replace(
            case.expected,
            probabilities=temper(case.expected.probabilities, temperatures),
            abnormal_p=temper(case.expected.abnormal_p, np.array(caller_temperature)),
        )
        cases.append(GoldenCase(frame=case.frame, expected=expected))
    return encode_golden(cases)
