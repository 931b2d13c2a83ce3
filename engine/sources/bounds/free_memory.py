"""Ask how much memory is left before a picture takes it: a header may claim any size."""

from __future__ import annotations

from pathlib import Path

from rbc_engine.errors import ImageError

__all__ = ["available_bytes", "check_memory"]

_SMALL_BYTES = 256 << 20
_SHARE = 0.8
_MEMINFO = Path("/proc/meminfo")
_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def check_memory(needed_bytes: int, *, what: str) -> None:
    """Check that there is room for something large. what: it, for the message.

    Raises ImageError if it would take more than four fifths of what is left.
    """
    if needed_bytes <= _SMALL_BYTES:
        return
    left = available_bytes()
    if left is not None and needed_bytes > _SHARE * left:
        raise ImageError(
            f"{what} would take {needed_bytes / 2**30:.1f} GiB of memory, and {left / 2**30:.1f} GiB "
            "are left; close other programs, or cut it into fields"
        )


def available_bytes() -> int | None:
    """Return the memory that this process may still take; None if the system does not say."""
    found = []
    for line in _text(_MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) << 10)
    for limit, used in _LIMITS:
        most, now = _text(limit).strip(), _text(used).strip()
        if most.isdigit() and now.isdigit():
            found.append(max(int(most) - int(now), 0))
    return min(found, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
