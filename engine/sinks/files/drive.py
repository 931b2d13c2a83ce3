"""Do what some drives lack: locks, and writing the names in a folder to disk.

Network drives and some others refuse one or both. Then the program goes on without, and says so;
only a lock that somebody else holds is in the way.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["NO_LOCKS", "NO_SYNC", "lock_file", "sync_folder"]

NO_LOCKS = (
    "the drive of --out has no file locks: that two runs write there at once would not be noticed"
)
NO_SYNC = (
    "the drive of --out cannot write the names in a folder to disk at once: a power cut may lose "
    "files that were just finished"
)

_LACKING = frozenset(
    {
        *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY),
        *(errno.EBADF, errno.EPERM, errno.EACCES, errno.EISDIR),
    }
)


def lock_file(file: BinaryIO, *, shared: bool) -> bool:
    """Lock a file without waiting; return False if its drive has no locks.

    Raises BlockingIOError if somebody else holds it.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:  # EWOULDBLOCK
        raise
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> bool:
    """Write the names in a folder to disk, so that a rename survives a power cut; return False if
    its drive does not do that. Raises OSError if it fails to.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one may write into a folder that one may not list
        return False
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        return False
    finally:
        os.close(descriptor)
    return True
