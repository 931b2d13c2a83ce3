"""A camera by pymmcore alone gives what it gives by pymmcore-plus."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from rbc_engine.bench.instruments.stub_engine import stub_engine
from rbc_engine.errors import DeviceError
from rbc_engine.sources.camera import feed_mda, feed_sequence, open_core

pytest.importorskip("pymmcore")
pytest.importorskip("mm_test_adapters")


def frames(core, engine):
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


def test_pymmcore_alone_feeds_a_session(monkeypatch):
    with stub_engine(lanes=1) as engine:
        _, expected = frames(open_core(width=64, height=48), engine)
        for name in [name for name in sys.modules if name.split(".")[0] == "pymmcore_plus"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "pymmcore_plus", None)
        light = open_core(width=64, height=48)
        assert not hasattr(light, "mda")
        with pytest.raises(DeviceError, match=r"rbc-engine\[acquisition\]"), feed_mda(light, None):
            pass
        report, ends = frames(light, engine)
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
