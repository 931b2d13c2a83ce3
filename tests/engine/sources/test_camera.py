"""Micro-Manager's DemoCamera, headless: every image that it makes is accounted for."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import DeviceError, UsageError
from rbc_engine.sources.camera import (
    feed_mda,
    feed_sequence,
    open_core,
    positions_until,
    stage_map,
)
from rbc_engine.stats.monitor import SlideMonitor
from rbc_engine.stats.stage_map import StageMap
from rbc_engine.types.ends import FrameStatus

from ...waits import LONG_S, once, wait_until

pytest.importorskip("pymmcore_plus")
useq = pytest.importorskip("useq")


@pytest.fixture(scope="module")
def engine():
    with stub_engine(lanes=2, frame_s=0.002) as opened:
        yield opened


@pytest.fixture
def core():
    core = open_core(width=64, height=48)
    yield core
    core.unloadAllDevices()


def test_a_sequence_is_submitted_in_colour_with_positions(engine, core):
    core.setXYPosition(120.0, -30.0)
    core.waitForDevice("XY")
    core.setProperty("Camera", "Mode", "Color Test Pattern")
    with engine.session(keep_frames=True, order="submitted") as session:
        report = feed_sequence(core, session, frames=10, fps=200)
        session.finish()
        ends = list(session.results())
    assert report.submitted >= 10
    assert report.lost == 0
    assert [ended.field for ended in ends] == [f"frame-{i:06d}" for i in range(len(ends))]
    assert {ended.position_um for ended in ends} == {(120.0, -30.0)}
    core.snapImage()
    snapped = core.getImage()  # pymmcore-plus's own idea of RGB
    np.testing.assert_array_equal(ends[0].result.frame.pixels, snapped)


@pytest.mark.parametrize(
    ("pixel_type", "bits", "channels"),
    [("8bit", "8", 1), ("16bit", "12", 1), ("64bitRGB", "16", 3)],
)
def test_pixel_types(engine, core, pixel_type, bits, channels):
    core.setProperty("Camera", "PixelType", pixel_type)
    core.setProperty("Camera", "BitDepth", bits)
    with engine.session(keep_frames=True) as session:
        feed_sequence(core, session, frames=4, fps=100)
        session.finish()
        ends = list(session.results())
    assert len(ends) >= 4
    for ended in ends:
        assert ended.ok, ended.reason
        pixels = ended.result.frame.pixels
        assert pixels.shape == (48, 64, 3)
        assert (channels == 3) or (pixels[..., 0] == pixels[..., 1]).all()


def test_a_pixel_type_that_is_no_image_is_refused(engine, core):
    core.setProperty("Camera", "PixelType", "32bit")
    with engine.session() as session, pytest.raises(UsageError, match="4 bytes per pixel"):
        feed_sequence(core, session, frames=1)


def test_an_overflow_of_micro_managers_buffer_is_counted(engine, core):
    """The session blocks while the camera goes on: what the buffer loses shows as dropped, to the
    last frame.
    """
    core.setProperty("Camera", "OnCameraCCDXSize", "512")
    core.setProperty("Camera", "OnCameraCCDYSize", "512")
    core.setProperty("Camera", "FastImage", "1")
    slow = stub_engine(lanes=1, frame_s=0.02)
    with slow, slow.session(on_full="block", max_in_flight=1) as session:
        report = feed_sequence(core, session, seconds=1.0, fps=500, buffer_mb=4)
        session.drain(timeout_s=LONG_S)
        counts = session.counts
        last = max(int(ended.field[6:]) for ended in session.poll())
    assert report.lost > 0
    assert (
        counts.lost == report.lost == session.causes["dropped: Micro-Manager's buffer overflowed"]
    )
    assert counts.submitted == report.submitted + report.lost
    assert counts.submitted == last + 1  # the number of the last image that the camera made
    assert counts.add_up


def test_full_rate_leaves_no_frame_uncounted(engine, core):
    core.setProperty("Camera", "OnCameraCCDXSize", "640")
    core.setProperty("Camera", "OnCameraCCDYSize", "480")
    core.setProperty("Camera", "FastImage", "1")
    core.setExposure(0.1)
    with engine.session(on_full="drop_oldest") as session:
        report = feed_sequence(core, session, seconds=1.0)
        session.drain(timeout_s=LONG_S)
        counts = session.counts
    assert counts.submitted == report.submitted + report.lost > 0
    assert counts.submitted == counts.done + counts.dropped


def test_stop_and_close_end_a_sequence(engine, core):
    stop = threading.Event()
    with engine.session(on_full="drop_oldest") as session:
        once(lambda: session.counts.submitted > 2, stop.set)
        feed_sequence(core, session, stop=stop, fps=100)
        before = session.counts.submitted
        once(lambda: session.counts.submitted > before, session.finish)
        feed_sequence(core, session, fps=100)
        assert not core.isSequenceRunning()
        assert session.counts.rejected == 1


def test_a_camera_that_stops_by_itself_is_an_error(engine, core):
    with engine.session(on_full="drop_oldest") as session:

        def fail():
            while not session.counts.submitted:  # not before it has begun
                time.sleep(0.005)
            core.stopSequenceAcquisition()

        threading.Thread(target=fail, daemon=True).start()
        with pytest.raises(DeviceError, match="stopped by itself after"):
            feed_sequence(core, session, fps=50, seconds=60)
        assert session.counts.add_up


def test_numbers_that_begin_anew_are_a_problem(engine, core, monkeypatch):
    numbers = iter([5, 6, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, *range(10, 1000)])
    pop = core.popNextImageAndMD

    def renumbered(**options):
        image, metadata = pop(**options)
        return image, {**metadata, "ImageNumber": str(next(numbers))}

    monkeypatch.setattr(core, "popNextImageAndMD", renumbered)
    with engine.session(on_full="drop_oldest") as session:
        report = feed_sequence(core, session, frames=8, fps=100)
        assert report.lost == 5
        assert any("anew" in problem for problem in session.problems)


def test_an_mda_feeds_a_session(engine, core):
    sequence = useq.MDASequence(
        stage_positions=[
            {"x": 10.0, "y": 5.0, "name": "corner"},
            {"x": 20.0, "y": 5.0},
            {"x": 30.0, "y": 5.0},
        ],
        time_plan={"interval": 0, "loops": 2},
    )
    with engine.session(order="submitted", keep_frames=True) as session:
        with feed_mda(core, session):
            core.run_mda(sequence, block=True)
        session.finish()
        ends = list(session.results())
        core.run_mda(sequence, block=True)  # no longer fed
        assert session.counts.submitted == 6
    assert len({ended.field for ended in ends}) == 6
    assert {ended.position_um for ended in ends} == {(10.0, 5.0), (20.0, 5.0), (30.0, 5.0)}
    assert all(ended.ok for ended in ends)
    assert "corner" in {ended.field for ended in ends}


def test_closing_the_session_cancels_an_mda(engine, core):
    sequence = useq.MDASequence(time_plan={"interval": 0.01, "loops": 500})
    session = engine.session(on_full="drop_oldest")
    session.wait_ready()
    with feed_mda(core, session):
        acquisition = core.run_mda(sequence)
        wait_until(lambda: session.counts.submitted > 0)
        session.close()
        acquisition.join(LONG_S)
        assert not acquisition.is_alive()
    assert 0 < session.counts.submitted < 500


def test_results_drive_the_stage(engine, core):
    """20 regions a field, and 100 are enough: the stage goes to five positions, not to all 50."""
    monitor = SlideMonitor(engine.pack.types, stage=StageMap.of_pixel(0.1))
    positions = [(100.0 * index, 0.0) for index in range(50)]
    with engine.session(on_ended=monitor.add) as session, feed_mda(core, session):
        core.run_mda(
            positions_until(
                lambda: monitor.enough(width=1.0, min_cells=90), positions, session=session
            ),
            block=True,
        )
    assert 5 <= monitor.fields < 12
    assert core.getXYPosition()[0] == pytest.approx(100.0 * (monitor.fields - 1), abs=0.1)


def test_the_stage_map_of_a_configuration(core):
    assert stage_map(core) is None
    core.definePixelSizeConfig("x")
    core.setPixelSizeUm("x", 0.25)
    core.setPixelSizeConfig("x")
    assert stage_map(core) == StageMap.of_pixel(0.25)
    core.setPixelSizeAffine("x", [0.0, 0.25, 0.0, -0.25, 0.0, 0.0])
    assert stage_map(core) == StageMap(matrix_um=((0.0, 0.25), (-0.25, 0.0)))


def test_a_configuration_that_does_not_load_names_itself(tmp_path):
    bad = tmp_path / "bad.cfg"
    bad.write_text("Device,Camera,NoSuchLibrary,DCam\n")
    for config in (bad, tmp_path / "missing.cfg"):
        with pytest.raises(DeviceError, match=config.name):
            open_core(config)


def test_ends_are_of_known_kinds(engine, core):
    with engine.session(on_full="drop_newest", max_in_flight=1) as session:
        feed_sequence(core, session, frames=30, fps=300)
        session.finish()
        kinds = {ended.status for ended in session.results()}
    assert kinds <= {FrameStatus.DONE, FrameStatus.DROPPED}


def colour_frames(core, engine):
    try:
        core.setXYPosition(120.0, -30.0)
        core.waitForDevice("XY")
        core.setProperty("Camera", "Mode", "Color Test Pattern")
        with engine.session(keep_frames=True, order="submitted") as session:
            report = feed_sequence(core, session, frames=5, fps=100)
            session.finish()
            return report, list(session.results())
    finally:
        core.unloadAllDevices()


def test_pymmcore_alone_feeds_a_session(engine, monkeypatch):
    _, expected = colour_frames(open_core(width=64, height=48), engine)
    for name in [name for name in sys.modules if name.split(".")[0] == "pymmcore_plus"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pymmcore_plus", None)
    light = open_core(width=64, height=48)
    assert not hasattr(light, "mda")
    with pytest.raises(DeviceError, match=r"rbc-engine\[acquisition\]"), feed_mda(light, None):
        pass
    report, ends = colour_frames(light, engine)
    assert report.submitted >= 5
    assert report.lost == 0
    assert all(ended.ok for ended in ends)
    assert {ended.position_um for ended in ends} == {(120.0, -30.0)}
    np.testing.assert_array_equal(ends[0].result.frame.pixels, expected[0].result.frame.pixels)


def test_without_any_core_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymmcore_plus", None)
    monkeypatch.setitem(sys.modules, "pymmcore", None)
    with pytest.raises(DeviceError, match=r"pip install 'rbc-engine\[camera\]'"):
        open_core()
