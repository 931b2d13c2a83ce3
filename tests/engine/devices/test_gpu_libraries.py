"""Everything of NVIDIA's libraries that the engine's code names exists in them, with these arguments.

Against the real cuda.core; against the real bindings of TensorRT, over empty libraries in the place of TensorRT's own,
which cannot be had here.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rbc_engine

ENGINE = Path(rbc_engine.__file__).parent

# What the bindings ask TensorRT's libraries for when they are loaded.
SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)

# Methods and properties that the code uses on objects whose class its text does not show.
TENSORRT_MEMBERS = {
    "Builder": "create_network create_builder_config build_serialized_network",
    "INetworkDefinition": "num_inputs num_outputs get_input get_output unmark_output",
    "ITensor": "name shape allowed_formats",
    "OnnxParser": "parse num_errors get_error",
    "ParserError": "desc",
    "IBuilderConfig": "set_memory_pool_limit max_aux_streams create_timing_cache set_timing_cache progress_monitor",
    "ITimingCache": "serialize",
    "IProgressMonitor": "phase_start step_complete phase_finish",
    "ILogger": "log",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "num_io_tensors get_tensor_name get_tensor_mode get_tensor_shape get_tensor_dtype "
    "get_tensor_format create_execution_context device_memory_size_v2",
    "IExecutionContext": "set_tensor_address execute_async_v3",
}


def named_in_code(module_name: str) -> set[str]:
    """Dotted names that the engine's files take from a variable of this name, e.g. 'TensorFormat.LINEAR'."""
    found = set()
    for path in [*(ENGINE / "devices").rglob("*.py"), *(ENGINE / "sources").rglob("dali.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            parts = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if isinstance(node, ast.Name) and node.id == module_name and parts:
                found.add(".".join(reversed(parts)))
    return found


@pytest.fixture(scope="module")
def tensorrt_names(tmp_path_factory) -> dict[str, list[str]]:
    """The names in tensorrt and in its classes, read in a process of its own."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stubs.c").write_text(
        "".join(f"void *{name}(void) {{ return 0; }}\n" for name in SYMBOLS)
    )
    compiler = shutil.which("cc") or shutil.which("gcc") or "c++"
    for name in ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11"):
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                f"-Wl,-soname,{name}",
                "-o",
                folder / name,
                folder / "stubs.c",
            ],
            check=True,
        )
    script = (
        "import json, tensorrt_bindings as trt\n"
        "names = {name: dir(getattr(trt, name)) for name in dir(trt)}\n"
        "names['__version__'] = [trt.__version__]\n"
        "print(json.dumps(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'tensorrt_bindings'" in done.stderr:
        pytest.skip("tensorrt-cu13-bindings is not installed; pip install 'rbc-engine[gpu-check]'")
    assert done.returncode == 0, done.stderr
    names: dict[str, list[str]] = json.loads(done.stdout)
    return names


def test_tensorrt_has_what_the_code_names(tensorrt_names) -> None:
    used = named_in_code("trt")
    assert {"TensorFormat.LINEAR", "Runtime", "IProgressMonitor.__init__"} <= used
    for name in used:
        first, _, rest = name.partition(".")
        assert first in tensorrt_names, f"tensorrt has no {first}"
        if rest:
            second = rest.split(".")[0]
            assert second in tensorrt_names[first], f"tensorrt.{first} has no {second}"
    for severity in ("ERROR", "INTERNAL_ERROR"):
        assert severity in tensorrt_names["ILogger"]


def test_tensorrt_objects_have_what_the_code_uses(tensorrt_names) -> None:
    for name, members in TENSORRT_MEMBERS.items():
        missing = set(members.split()) - set(tensorrt_names[name])
        assert not missing, f"tensorrt.{name} has no {sorted(missing)}"


def test_tensorrt_rtx_has_the_same() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for name in named_in_code("trt"):
        owner = trt
        for part in name.split("."):
            assert hasattr(owner, part), name
            owner = getattr(owner, part)
    for name, members in TENSORRT_MEMBERS.items():
        for member in members.split():
            assert hasattr(getattr(trt, name), member), f"{name}.{member}"


def test_cuda_core_takes_the_calls_that_the_code_makes() -> None:
    core = pytest.importorskip("cuda.core")
    from cuda.core.graph import Graph, GraphBuilder
    from cuda.core.utils import StridedMemoryView

    for name in named_in_code("core") | named_in_code("_core"):
        owner = core
        for part in name.split("."):
            assert hasattr(owner, part), name
            owner = getattr(owner, part)
    me = object()
    calls = [
        (core.Device.set_current, (me,), {}),
        (core.Device.create_stream, (me,), {}),
        (core.MemoryResource.allocate, (me, 1), {"stream": me}),
        (core.DeviceMemoryResource.allocate, (me, 1), {"stream": me}),
        (core.LegacyPinnedMemoryResource.allocate, (me, 1), {}),
        (core.Buffer.from_handle, (1, 1), {}),
        (core.Buffer.copy_from, (me, me), {"stream": me}),
        (core.Buffer.fill, (me, 0), {"stream": me}),
        (core.Stream.record, (me,), {"options": me}),
        (core.Stream.sync, (me,), {}),
        (core.Stream.create_graph_builder, (me,), {}),
        (core.Event.sync, (me,), {}),
        (GraphBuilder.begin_building, (me, "thread_local"), {}),
        (GraphBuilder.end_building, (me,), {}),
        (GraphBuilder.complete, (me,), {}),
        (GraphBuilder.close, (me,), {}),
        (Graph.launch, (me, me), {}),
        (Graph.close, (me,), {}),
        (StridedMemoryView.from_dlpack, (me,), {"stream_ptr": 7}),
    ]
    for function, arguments, options in calls:
        inspect.signature(function).bind(*arguments, **options)
    for owner, names in (
        (core.Device, "name compute_capability memory_resource"),
        (core.Stream, "handle"),
        (core.Buffer, "handle size"),
        (core.Event, "__sub__"),
        (StridedMemoryView, "ptr shape strides dtype"),
    ):
        for name in names.split():
            assert hasattr(owner, name), f"{owner.__name__}.{name}"
    options = core.EventOptions(timing_enabled=True, blocking_sync=True)
    assert (options.timing_enabled, options.blocking_sync) == (True, True)
    driver = pytest.importorskip("cuda.bindings.driver")
    assert callable(driver.cuMemGetInfo)


def test_cuda_core_counts_strides_in_elements() -> None:
    """As LaneMemory.adopt reads them."""
    utils = pytest.importorskip("cuda.core.utils")
    import numpy as np

    view = utils.StridedMemoryView.from_dlpack(np.zeros((4, 6, 3), np.float32), stream_ptr=-1)
    assert view.strides in (None, (18, 3, 1))
    cut = utils.StridedMemoryView.from_dlpack(
        np.zeros((4, 6, 3), np.float32)[:, ::2], stream_ptr=-1
    )
    assert (cut.shape, cut.strides) == ((4, 3, 3), (18, 6, 1))


def test_nothing_of_nvidias_is_imported_without_a_gpu() -> None:
    script = (
        "import sys\n"
        "from rbc_engine.cli import app\n"
        "from rbc_engine.cli.doctor import _report\n"
        "_report()\n"
        "import rbc_engine.sources.open, rbc_engine.devices.cuda.device\n"
        "loaded = [n for n in sys.modules if n.split('.')[0] in ('tensorrt', 'nvidia', 'cuda')]\n"
        "bad = set(loaded) - {'cuda', 'nvidia'}  # looking into a package loads the one above it, which is empty\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
