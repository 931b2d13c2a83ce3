"""Measure the machine's own limits: how fast it multiplies matrices, and how fast it moves
bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import openvino as ov
from openvino import opset13 as op

from rbc_engine.bench.instruments.machine import cache_bytes
from rbc_engine.bench.instruments.work import Work

__all__ = ["Limits", "matrix_flops_per_s", "measure_limits", "memory_bytes_per_s"]

_SIDE = 1024
_LAYERS = 6
_CHANNELS = 256
_MAP_PX = 40
_MATRIX_S = 0.6
"""Seconds for which each product is repeated; the best pass counts."""
_LEAST_BYTES = 128 * 2**20
_LEVELS = 255
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "bf16"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold what the machine can do at best.

    flops_per_s: by precision, of those measured. bytes_per_s: of memory, reading and writing.
    gaps: what was not measured, and why.
    """

    flops_per_s: dict[str, float]
    bytes_per_s: float
    gaps: list[str] = field(default_factory=list)

    def seconds(self, work: Work, *, precision: str | None) -> float:
        """Return the least time for it: operations or bytes at the full rate, whichever takes
        longer.

        precision: of the matrix products; None if there are none, or their rate was not measured.
        """
        rate = self.flops_per_s.get(precision or "")
        return max(work.flops / rate if rate else 0.0, work.bytes / self.bytes_per_s)


def measure_limits(*, precision: str, threads: int, short: bool = False) -> Limits:
    """Measure all limits of the CPU.

    precision: whose rate is wanted, besides fp32. threads: how many cores there are for it.
    """
    flops, gaps = {}, []
    for name in dict.fromkeys(("fp32", "bf16", "int8", precision)):
        if short and name not in ("fp32", precision):
            continue
        rate, gap = matrix_flops_per_s(
            name, threads=threads, seconds=_MATRIX_S / 4 if short else _MATRIX_S
        )
        if rate is not None:
            flops[name] = rate
        if gap:
            gaps.append(gap)
    return Limits(
        flops_per_s=flops,
        bytes_per_s=memory_bytes_per_s(threads=threads, passes=3 if short else 7),
        gaps=gaps,
    )


def matrix_flops_per_s(
    precision: str, *, threads: int, seconds: float = _MATRIX_S
) -> tuple[float | None, str | None]:
    """Measure the better rate of two kinds of products: matrices of 1024 by 1024, and 3 by 3
    convolutions of 256 channels.

    Returns the rate or None, and the reason for None: OpenVINO does not compute in that precision
    here.
    """
    hint = _HINTS.get(precision)
    if hint is None:
        return None, f"matrix rate of {precision}: OpenVINO has no such precision on a CPU"
    best = 0.0
    for build in (_matrices, _convolutions):
        model, flops = build(quantised=precision == "int8")
        compiled = ov.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else hint,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
                "INFERENCE_NUM_THREADS": threads,
                "ENABLE_CPU_PINNING": False,
            },
        )
        ran = _product_precisions(compiled)
        wanted = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "i8"}[precision]
        if not all(found.replace("u8", "i8") == wanted for found in ran):
            return None, f"matrix rate of {precision}: OpenVINO ran the products in {sorted(ran)}"
        request = compiled.create_infer_request()
        request.infer()  # on its zeros; the speed does not depend on the values
        least_s = _best(request.infer, seconds=seconds)
        best = max(best, flops / least_s)
    return best, None


def memory_bytes_per_s(*, threads: int, passes: int = 7) -> float:
    """Measure the best rate of copying an array much larger than the caches, in `threads` threads,
    in bytes read and written.
    """
    largest = max(cache_bytes().values(), default=0)
    count = max(4 * largest, _LEAST_BYTES) // 8
    source, target = np.ones(count), np.empty(count)
    parts = [
        slice(count * index // threads, count * (index + 1) // threads) for index in range(threads)
    ]
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        copy()  # allocates the pages
        least_s = min(_seconds(copy) for _ in range(passes))
    return 2 * source.nbytes / least_s


def _matrices(*, quantised: bool) -> tuple[ov.Model, float]:
    rng = np.random.default_rng(0)
    given = op.parameter([_SIDE, _SIDE], np.float32)
    node = given
    for _ in range(_LAYERS):
        weights = op.constant(rng.normal(0, 0.03, (_SIDE, _SIDE)).astype(np.float32))
        node = op.matmul(_quantised(node, quantised), _quantised(weights, quantised), False, False)
    return ov.Model([node], [given], "matrices"), 2.0 * _SIDE**3 * _LAYERS


def _convolutions(*, quantised: bool) -> tuple[ov.Model, float]:
    rng = np.random.default_rng(0)
    given = op.parameter([1, _CHANNELS, _MAP_PX, _MAP_PX], np.float32)
    node = given
    for _ in range(_LAYERS):
        shape = (_CHANNELS, _CHANNELS, 3, 3)
        weights = op.constant(rng.normal(0, 0.03, shape).astype(np.float32))
        node = op.convolution(
            _quantised(node, quantised),
            _quantised(weights, quantised),
            [1, 1],
            [1, 1],
            [1, 1],
            [1, 1],
        )
    flops = 2.0 * _MAP_PX**2 * _CHANNELS**2 * 9 * _LAYERS
    return ov.Model([node], [given], "convolutions"), flops


def _quantised(node: ov.Node, wanted: bool) -> ov.Node:
    if not wanted:
        return node
    low, high = (op.constant(np.float32(level)) for level in (-1.28, 1.27))
    return op.fake_quantize(node, low, high, low, high, _LEVELS + 1)


def _product_precisions(compiled: ov.CompiledModel) -> set[str]:
    """Return the precisions that the products were really compiled to."""
    found = set()
    for layer in compiled.get_runtime_model().get_ops():
        info = layer.get_rt_info()
        if info["layerType"].astype(str) in ("FullyConnected", "MatMul", "Convolution"):
            found.add(info["runtimePrecision"].astype(str))
    return found


def _best(run: Callable[[], object], *, seconds: float) -> float:
    until = time.perf_counter() + seconds
    least_s = _seconds(run)
    while time.perf_counter() < until:
        least_s = min(least_s, _seconds(run))
    return least_s


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
