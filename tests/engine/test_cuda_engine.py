"""The whole engine on fake GPUs: the CPU's answers, and what happens when GPUs fail."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rbc_engine import DeviceError, Engine
from rbc_engine.devices.choose import open_devices
from rbc_engine.devices.cuda import plan_build
from rbc_engine.devices.cuda.frame import CudaFrame
from rbc_engine.devices.cuda.plan_cache import cache_folder
from rbc_engine.lanes import prove
from rbc_engine.packs.golden import ExpectedRegions, GoldenCase, compare, encode_golden, read_golden
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.sources.synthetic.field import render_field
from rbc_engine.types.frames import Decoded, FieldRef, Frame, Place
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

from .fakes.machine import FakeMachine


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("RBC_ENGINE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def small_pack() -> Pack:
    """Return the shipped networks on a small canvas with few proposals, and the CPU's answers."""
    pack = Pack.open(find_pack("chula12"))
    detector = pack.manifest.detector.model_copy(
        update={"short_side_px": 128, "proposals": 60, "proposals_per_level": 100}
    )
    manifest = pack.manifest.model_copy(update={"detector": detector})
    pack = dataclasses.replace(pack, manifest=manifest)
    cases = []
    with Engine.on(pack, *open_devices("cpu", precision="fp32")) as opened:
        for decoded in source(2, width=256, height=192):
            regions = opened.analyze(decoded.frame).regions
            cases.append(GoldenCase(frame=decoded.frame.pixels, expected=expectation(regions)))
    assert sum(len(case.expected.boxes) for case in cases) > 5
    return dataclasses.replace(pack, _files={**pack._files, "golden.npz": encode_golden(cases)})


@pytest.fixture(autouse=True)
def _takes_the_small_pack(small_pack: Pack, monkeypatch) -> None:
    monkeypatch.setattr(Pack, "open", classmethod(lambda cls, folder: small_pack))


class Watch:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, phase: str, done: int, total: int) -> bool:
        return True


def source(count: int, *, width: int = 320, height: int = 240) -> Iterator[Decoded]:
    for index in range(count):
        pixels = render_field(seed=index, width=width, height=height, cells=6).pixels
        ref = FieldRef(slide="s", field=f"{index}", path=Path(f"{index}.jpg"))
        yield Decoded(ref=ref, frame=Frame(pixels=pixels, slide="s", field=f"{index}"))


def expectation(regions: Regions) -> ExpectedRegions:
    return ExpectedRegions(
        boxes=regions.boxes,
        scores=regions.scores,
        probabilities=regions.probabilities,
        abnormal_p=regions.abnormal_p,
    )


@pytest.fixture(scope="module")
def from_cpu(small_pack: Pack) -> list[FieldResult]:
    with Engine.on(small_pack, *open_devices("cpu", precision="fp32")) as opened:
        return list(opened.run(source(7)))


def check(results: list[FieldResult], from_cpu: list[FieldResult]) -> None:
    """The results are the CPU's, in order."""
    assert results
    for result, expected in zip(results, from_cpu, strict=False):
        assert (result.field, result.error) == (expected.field, None)
        regions = expected.regions
        assert regions is not None
        assert compare(expectation(regions), result.regions, score_threshold=0.51) == []


def test_answers_are_the_cpus(monkeypatch, from_cpu) -> None:
    machine = FakeMachine().install(monkeypatch)
    watch = Watch()
    with Engine.open("chula12", device="cuda", watch=watch) as opened:
        check(list(opened.run(source(7))), from_cpu)
        assert opened.choice.device.name == "cuda:0: Fake GPU 0"
        assert opened.choice.device.precision == "fp16"
        assert opened.lanes == 4
        assert all("no verdict on cuda:" in note for note in opened.notes)
        assert opened.meter.network_seconds > 0
    assert machine.gpus.graphs_launched > 0
    builds = machine.trt.builds
    assert len(watch.lines) == builds > 0
    assert all("compiling" in line and "not compiled yet" in line for line in watch.lines)
    gc.collect()
    for stream in machine.gpus.streams.values():
        stream.sync()


def test_compiled_networks_are_kept_and_those_for_another_tensorrt_made_anew(monkeypatch) -> None:
    machine = FakeMachine().install(monkeypatch)
    with Engine.open("chula12", device="cuda", lanes=1):
        pass
    builds = machine.trt.builds
    watch = Watch()
    with Engine.open("chula12", device="cuda", lanes=1, watch=watch):
        pass
    assert (machine.trt.builds, watch.lines) == (builds, [])
    plans = sorted(cache_folder().rglob("*.plan"))
    assert len(plans) == builds
    plans[0].write_bytes(plans[0].read_bytes()[:-100])
    machine.trt.__version__ = "11.9"
    with Engine.open("chula12", device="cuda", lanes=1, watch=watch):
        pass
    assert machine.trt.builds == 2 * builds
    assert (
        sum("made for tensorrt '11.4.0.106', and this is '11.9'" in t for t in watch.lines)
        == builds
    )
    assert sorted(cache_folder().rglob("*.plan")) == plans


def test_wrong_answers_refuse_the_engine_and_keep_nothing(monkeypatch) -> None:
    FakeMachine().install(monkeypatch)

    def moved(data: bytes):
        case = read_golden(data)[0]
        expected = dataclasses.replace(case.expected, boxes=case.expected.boxes + 9)
        return [dataclasses.replace(case, expected=expected)]

    monkeypatch.setattr(prove, "read_golden", moved)
    with pytest.raises(DeviceError, match=r"cuda:0.*TensorRT 11.*golden 0.*the engine is refused"):
        Engine.open("chula12", device="cuda", lanes=1)
    assert list(cache_folder().rglob("*.plan")) == []


def test_lanes_are_as_many_as_the_memory_holds(monkeypatch, from_cpu) -> None:
    machine = FakeMachine().install(monkeypatch)
    with Engine.open("chula12", device="cuda", lanes=1):
        taken = machine.gpus.used[0]
    machine = FakeMachine(total_bytes=int(2.6 * taken)).install(monkeypatch)
    with Engine.open("chula12", device="cuda") as opened:
        assert opened.lanes == 2
        assert any("lanes 2 instead of 4: the first lane took" in note for note in opened.notes)
        check(list(opened.run(source(5))), from_cpu)
    machine = FakeMachine(total_bytes=taken // 2).install(monkeypatch)
    with pytest.raises(DeviceError, match=r"out of GPU memory; it does not hold one lane"):
        Engine.open("chula12", device="cuda")


def test_two_gpus_share_the_work_and_one_that_is_lost_is_done_without(
    monkeypatch, from_cpu
) -> None:
    machine = FakeMachine(count=2).install(monkeypatch)
    with Engine.open("chula12", device="cuda:all", lanes=1) as opened:
        assert [str(choice.place) for choice in opened.choices] == ["cuda:0", "cuda:1"]
        check(list(opened.run(source(4))), from_cpu)
        machine.gpus.lost.add(1)
        check(list(opened.run(source(7))), from_cpu)
        assert opened.lanes == 1
        (lost,) = [note for note in opened.notes if "Fake GPU 1 is out of use: stage" in note]
        assert "ILLEGAL_ADDRESS" in lost
        machine.gpus.lost.add(0)
        with pytest.raises(DeviceError, match=r"stage detect on cuda:0: Fake GPU 0: .*nvidia-smi"):
            opened.analyze(np.zeros((240, 320, 3), np.uint8))


def test_frames_that_a_decoder_left_on_the_gpu_are_used_there(monkeypatch, from_cpu) -> None:
    machine = FakeMachine().install(monkeypatch)

    class Pixels:
        place = Place("cuda", 0)
        dtype, strides = np.dtype(np.uint8), None

        def __init__(self, pixels: np.ndarray) -> None:
            self.shape, self._pixels = pixels.shape, pixels
            machine.gpus.current.number = 0
            self.ptr = machine.gpus.allocate(pixels.size, 0)
            machine.gpus.view(self.ptr, self.shape, np.uint8)[:] = pixels

        def __dlpack__(self, *, stream: int):
            assert stream in machine.gpus.streams
            return self

        def to_host(self) -> np.ndarray:
            return self._pixels

    frames = [
        dataclasses.replace(
            decoded, frame=dataclasses.replace(decoded.frame, pixels=Pixels(decoded.frame.pixels))
        )
        for decoded in source(3)
    ]
    with Engine.open("chula12", device="cuda", lanes=2) as opened:
        results = list(opened.run(frames, keep_frames=True))
    check(results, from_cpu)
    for result, decoded in zip(results, source(3), strict=True):
        assert result.frame is not None
        np.testing.assert_array_equal(result.frame.pixels, decoded.frame.pixels)


def test_a_session_reads_frames_on_its_gpu_where_they_lie(monkeypatch, from_cpu) -> None:
    machine = FakeMachine().install(monkeypatch)
    exported = []

    class Cupy:
        strides, dtype = None, np.dtype(np.uint8)

        def __init__(self, pixels: np.ndarray) -> None:
            self.shape = pixels.shape
            machine.gpus.current.number = 0
            self.ptr = machine.gpus.allocate(pixels.size, 0)
            machine.gpus.view(self.ptr, self.shape, np.uint8)[:] = pixels
            self.__cuda_array_interface__ = {
                "shape": pixels.shape,
                "typestr": "|u1",
                "data": (self.ptr, False),
                "version": 3,
            }

        def __dlpack__(self, *, stream: int):
            assert stream in machine.gpus.streams
            exported.append(self.ptr)
            return self

        def __dlpack_device__(self):
            return 2, 0

    def to_host(frame: CudaFrame) -> np.ndarray:
        return machine.gpus.view(frame._address, frame.shape, np.uint8).copy()

    monkeypatch.setattr(CudaFrame, "to_host", to_host)  # it asks the driver itself
    frames = [Cupy(decoded.frame.pixels) for decoded in source(3)]
    with (
        Engine.open("chula12", device="cuda", lanes=1) as opened,
        opened.session(order="submitted", slide="s") as session,
    ):
        for index, frame in enumerate(frames):
            assert session.submit(frame, field=f"{index}").ended is None
        session.finish()
        ends = list(session.results())
    assert [end.status.name for end in ends] == ["DONE"] * 3, [end.reason for end in ends]
    check([end.result for end in ends], from_cpu)
    assert set(exported) == {frame.ptr for frame in frames}


def test_a_pack_that_tensorrt_refuses_is_said(monkeypatch) -> None:
    FakeMachine().install(monkeypatch)

    def refuse(*_, **__):
        raise plan_build.tensorrt_failure("cannot compile a network of the pack", ["no tactic"])

    monkeypatch.setattr("rbc_engine.devices.cuda.device.build_plan", refuse)
    with pytest.raises(DeviceError, match=r"stage classify on cuda:0.*cannot compile.*no tactic"):
        Engine.open("chula12", device="cuda", lanes=1)
