"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rbc_engine.packs.pack import Pack, find_pack

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")

# Before any test imports torch: its threads would spin while they wait for one another. On a busy
# machine they would keep the very thread that they wait for off its processor, for minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """A shell ignores interrupts for what it starts in the background (`nohup pytest &`), and so
    would this process and every one that a test starts and interrupts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout, with samples/."""
    return _REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real smears (chula12/, slides/); tests that take it carry the marker
    `real`.
    """
    folder = Path(os.environ.get("RBC_DATA") or _REPOSITORY.parent / "shared" / "data")
    if not (folder / "chula12").is_dir():
        pytest.skip(f"no real smear images at {folder}; set RBC_DATA")
    return folder


@pytest.fixture(scope="session")
def pack() -> Pack:
    """The pack that is shipped."""
    return Pack.open(find_pack("chula12"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where RBC_FAIL_ON_SKIP is set, a skip is a failure, unless the test needs what CI cannot
    have.
    """
    report = yield
    may_skip = any(item.get_closest_marker(name) for name in ("real", "gpu"))
    if os.environ.get("RBC_FAIL_ON_SKIP") and report.skipped and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"skipped under RBC_FAIL_ON_SKIP: {report.longrepr}"
    return report
