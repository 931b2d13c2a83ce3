"""Open Micro-Manager's core with pymmcore alone, which needs nothing but numpy."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["light_core"]

_FOLDER = "MICROMANAGER_PATH"


def light_core() -> Any:
    """Return a core that finds the device adapters, with the calls that feed_sequence makes.

    Adapters are looked for in the folder that the variable MICROMANAGER_PATH names, and in the
    package mm-test-adapters. Raises ImportError without pymmcore.
    """
    import pymmcore

    class LightCore(pymmcore.CMMCore):
        """Add what pymmcore-plus calls an image with its metadata."""

        def popNextImageAndMD(self, fix: bool = True) -> tuple[Any, dict[str, str]]:  # noqa: N802
            """Return the next image of the buffer as the camera made it, and its metadata."""
            tags = pymmcore.Metadata()
            image = self.popNextImageMD(tags)
            return image, {key: tags.GetSingleTag(key).GetValue() for key in tags.GetKeys()}

    core = LightCore()
    core.setDeviceAdapterSearchPaths(_adapter_folders())
    return core


def _adapter_folders() -> list[str]:
    folders = [Path(folder) for folder in filter(None, [os.environ.get(_FOLDER)])]
    if find_spec("mm_test_adapters") is not None:
        from mm_test_adapters import device_adapter_path

        folders.append(Path(device_adapter_path()))
    return [str(folder) for folder in folders if folder.is_dir()]
