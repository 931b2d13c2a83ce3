"""Store compiled networks on disk: whole, unchanged and made for exactly this GPU and TensorRT, or
not used.

A file is a line that names the format, a line of JSON that describes the plan's source and target,
and the plan.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rbc_engine.errors import DeviceError

__all__ = ["PlanCache", "PlanKey", "cache_folder"]

_MAGIC = b"rbc-engine plan 1\n"
_HEADER_MAX_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """Hold what a plan depends on.

    onnx_sha256: of the network, as it is in its pack.
    shapes: of the inputs, e.g. "canvas 8x320x448x3".
    gpu: name of the GPU. capability: its compute capability, e.g. "8.9".
    tensorrt: version.
    """

    onnx_sha256: str
    outputs: str
    shapes: str
    precision: str
    gpu: str
    capability: str
    tensorrt: str

    @classmethod
    def of(
        cls,
        onnx: bytes,
        *,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        precision: str,
        gpu: str,
        capability: tuple[int, int],
        tensorrt: str,
    ) -> PlanKey:
        return cls(
            onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            outputs=" ".join(outputs),
            shapes=" ".join(f"{name} {'x'.join(map(str, s))}" for name, s in shapes.items()),
            precision=precision,
            gpu=gpu,
            capability=f"{capability[0]}.{capability[1]}",
            tensorrt=tensorrt,
        )

    @property
    def file_name(self) -> str:
        """Return a name that depends on what is compiled, not for what: a new TensorRT replaces the
        plans of the previous one.
        """
        return f"{_slug(self.shapes)}-{self.precision}.plan"


def cache_folder() -> Path:
    """Return the folder for plans: RBC_ENGINE_CACHE, else rbc-engine/ in the user's cache
    folder.
    """
    given = os.environ.get("RBC_ENGINE_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rbc-engine"


class PlanCache:
    """Store the plans of one pack for one kind of GPU.

    root: a folder for all of them, created at the first write.
    """

    def __init__(self, root: Path, *, pack: str, gpu: str) -> None:
        self.folder = root / "plans" / _slug(pack) / _slug(gpu)

    def read(self, key: PlanKey) -> tuple[bytes | None, str]:
        """Return the plan, or None and why there is no usable one."""
        path = self.folder / key.file_name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None, "not compiled yet"
        except OSError as error:
            return None, f"{path} cannot be read: {error.strerror or error}"
        problem, plan = _check(data, key)
        return (None, f"{path.name} {problem}") if problem else (plan, "")

    def write(self, key: PlanKey, plan: bytes) -> None:
        """Write a plan; raise DeviceError if that fails."""
        header = json.dumps(
            {**asdict(key), "bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()}
        )
        self._write(key.file_name, _MAGIC + header.encode() + b"\n" + plan)

    def remove(self, key: PlanKey) -> None:
        (self.folder / key.file_name).unlink(missing_ok=True)

    def read_timing(self, tensorrt: str) -> bytes:
        """Read TensorRT's own cache of timings, which TensorRT checks. Empty if there is none."""
        try:
            return (self.folder / _timing_name(tensorrt)).read_bytes()
        except OSError:
            return b""

    def write_timing(self, tensorrt: str, data: bytes) -> None:
        self._write(_timing_name(tensorrt), data)

    def _write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all: next to its place, then renamed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.folder, prefix=f".{name}.", delete=False
            ) as file:
                beside = Path(file.name)
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                    beside.replace(self.folder / name)
                except BaseException:
                    beside.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise DeviceError(
                f"compiled networks cannot be stored in {self.folder}: {error.strerror or error}; "
                f"free space there, or set RBC_ENGINE_CACHE to another folder"
            ) from error


def _check(data: bytes, key: PlanKey) -> tuple[str, bytes]:
    """Return what is wrong with a file, or "" and its plan."""
    if not data.startswith(_MAGIC):
        return "is not a plan of this version of rbc-engine", b""
    end = data.find(b"\n", len(_MAGIC), len(_MAGIC) + _HEADER_MAX_BYTES)
    try:
        header = json.loads(data[len(_MAGIC) : end]) if end > 0 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        return "is damaged in its header", b""
    for name, wanted in asdict(key).items():
        if header.get(name) != wanted:
            said = "another network" if name == "onnx_sha256" else f"{name} {header.get(name)!r}"
            here = "" if name == "onnx_sha256" else f", and this is {wanted!r}"
            return f"was made for {said}{here}", b""
    plan = data[end + 1 :]
    if len(plan) != header.get("bytes"):
        return f"is cut off: {len(plan)} of {header.get('bytes')} bytes", b""
    if hashlib.sha256(plan).hexdigest() != header.get("sha256"):
        return "is damaged: its sha256 does not match", b""
    return "", plan


def _timing_name(tensorrt: str) -> str:
    return f"tensorrt-{_slug(tensorrt)}.timing"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"
