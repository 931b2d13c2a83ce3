"""Compile ONNX to a TensorRT plan. TensorRT 11 is strongly typed: it computes in the types of the
graph.

`trt` is the module tensorrt everywhere here, passed in so that nothing imports it before a GPU was
found. The same code runs with tensorrt_rtx, whose builder needs no GPU: that is how it is tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rbc_engine.devices.base import BuildWatch
from rbc_engine.errors import DeviceError, DeviceMemoryError

__all__ = ["build_plan", "make_log", "tensorrt_failure"]

# For the scratch memory of one network: with more the faster algorithms gain little, and each lane
# pays for it.
_WORKSPACE_BYTES = 1 << 30


def make_log(trt: Any) -> Any:
    """Return a trt.ILogger that keeps TensorRT's complaints, in `lines`, instead of printing them.
    One serves a process.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.lines.append(" ".join(message.split()))
                del self.lines[:-20]

    return Log()


def build_plan(
    trt: Any,
    log: Any,
    onnx: bytes,
    *,
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    channels_last: Sequence[str] = (),
    timing: bytes | None = None,
    watch: BuildWatch | None = None,
    configure: Callable[[Any], None] = lambda config: None,
) -> tuple[bytes, bytes]:
    """Compile a network for the current GPU.

    outputs: to keep; what only the others need is removed.
    shapes: of every input.
    channels_last: outputs that may come as [N, h, w, C], if that is faster (C a multiple of 8).
    timing: result of an earlier build for this GPU; None for none.
    configure: last changes to the trt.IBuilderConfig.

    Returns the plan, and what to pass as `timing` the next time. Raises DeviceError with TensorRT's
    own reason.
    """
    del log.lines[:]
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise tensorrt_failure("cannot read a network of the pack", reasons or log.lines)
    _fix_inputs(trt, network, shapes)
    _keep_outputs(trt, network, outputs, channels_last)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    # A lane is one stream; work beside it belongs to another lane.
    config.max_aux_streams = 0
    cache = None
    if timing is not None:
        cache = config.create_timing_cache(timing)
        if not config.set_timing_cache(cache, False):  # of another GPU or version: TensorRT says so
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
    monitor = _make_monitor(trt, watch) if watch is not None else None
    if monitor is not None:
        config.progress_monitor = monitor
    configure(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if monitor is not None and monitor.stopped:
            raise DeviceError(
                "the compilation was stopped; start it again: it resumes where it stopped"
            )
        raise tensorrt_failure("cannot compile a network of the pack", log.lines)
    return bytes(plan), b"" if cache is None else bytes(cache.serialize())


def _keep_outputs(
    trt: Any, network: Any, outputs: Sequence[str], channels_last: Sequence[str]
) -> None:
    tensors = [network.get_output(index) for index in range(network.num_outputs)]
    missing = sorted(set(outputs) - {tensor.name for tensor in tensors})
    if missing:
        have = sorted(tensor.name for tensor in tensors)
        raise DeviceError(f"the network has the outputs {have} (got {missing})")
    linear = 1 << int(trt.TensorFormat.LINEAR)
    for tensor in tensors:
        if tensor.name not in outputs:
            network.unmark_output(tensor)
        elif tensor.name in channels_last:
            tensor.allowed_formats = linear | 1 << int(trt.TensorFormat.HWC8)
        else:
            tensor.allowed_formats = linear


def _fix_inputs(trt: Any, network: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Fix all dimensions, so that any number of contexts may share the engine, without profiles to
    divide up.
    """
    tensors = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    if tensors.keys() != shapes.keys():
        raise DeviceError(f"the network has the inputs {sorted(tensors)} (got {sorted(shapes)})")
    for name, shape in shapes.items():
        tensors[name].shape = shape
        tensors[name].allowed_formats = 1 << int(trt.TensorFormat.LINEAR)


def _make_monitor(trt: Any, watch: BuildWatch) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            total = self._steps.get(phase_name, step + 1)
            if not watch.progress(phase_name, step + 1, total):
                self.stopped = True
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def tensorrt_failure(what: str, reasons: Sequence[str]) -> DeviceError:
    """Return an error with what TensorRT could not do, and what it logged."""
    lines = [" ".join(reason.split()) for reason in reasons]
    said = "; ".join(dict.fromkeys(lines)) or "it gives no reason"
    kind = DeviceMemoryError if "out of memory" in said.lower() else DeviceError
    return kind(f"TensorRT {what}: {said:.1000}")
