"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rbc_engine.packs.pack import Pack, find_pack

settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("default")

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout, with samples/."""
    return _REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real smears (chula12/, slides/); tests that take it carry the marker `real`."""
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
    """Where RBC_FAIL_ON_SKIP is set, a skip is a failure, unless the test needs what CI cannot have."""
    report = yield
    may_skip = any(item.get_closest_marker(name) for name in ("real", "gpu"))
    if os.environ.get("RBC_FAIL_ON_SKIP") and report.skipped and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"skipped under RBC_FAIL_ON_SKIP: {report.longrepr}"
    return report
