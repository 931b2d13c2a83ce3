"""Read and compare golden.npz of a model pack: a few frames and the regions that the engine must
find in them.

The file may come from an untrusted source. Names, types and sizes are checked before anything is
unpacked, and nothing in it is ever unpickled.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import PackError
from rbc_engine.types.arrays import Float32, UInt8
from rbc_engine.types.kinds import Kind
from rbc_engine.types.regions import Regions

__all__ = [
    "ExpectedRegions",
    "GoldenCase",
    "compare",
    "compare_at_precision",
    "encode_golden",
    "read_golden",
]

_MOST_CASES = 16
_MOST_BYTES = 64 * 2**20
# What np.save writes before an array. numpy's own reader evaluates it and allocates any shape that
# it claims.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([|<][a-z][0-9])', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,9}(?:, [0-9]{1,9})*),?\), \} *\n",
    re.DOTALL,
)
# By precision, except fp32: of an edge in px, of a score or a probability, of abnormal_p. Whether a
# quantised network is good enough is decided by the pack's calibration; these limits detect a
# broken one.
_TOLERANCES = {"bf16": (1.0, 0.05, 0.2), "int8": (2.0, 0.1, 0.3), "fp8": (2.0, 0.1, 0.3)}
_DTYPES: dict[str, np.dtype[Any]] = {
    "frame": np.dtype(np.uint8),
    "boxes": np.dtype(np.float32),
    "scores": np.dtype(np.float32),
    "probabilities": np.dtype(np.float32),
    "abnormal_p": np.dtype(np.float32),
}
_KINDS = "kinds"
"""An array more of each case, uint8, which packs of schema 1 do not have."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpectedRegions:
    """Hold what the engine must find, as in rbc_engine.types.results.Regions.

    boxes: float32 [R, 4], frame px. scores: float32 [R]. probabilities: float32 [R, T]. abnormal_p:
    float32 [R]. kinds: uint8 [R], of Kind; None for red cells all.
    """

    boxes: Float32
    scores: Float32
    probabilities: Float32
    abnormal_p: Float32
    kinds: UInt8 | None = None

    @property
    def kind_numbers(self) -> UInt8:
        """Return kinds, uint8 [R], all red if None."""
        return np.zeros(len(self.boxes), np.uint8) if self.kinds is None else self.kinds


@dataclass(frozen=True, eq=False, kw_only=True)
class GoldenCase:
    """Hold a frame, uint8 [H, W, 3], RGB, and the expected results on the CPU in fp32."""

    frame: UInt8
    expected: ExpectedRegions


def encode_golden(cases: Sequence[GoldenCase]) -> bytes:
    """Encode cases as golden.npz."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for index, case in enumerate(cases):
        arrays[f"frame_{index}"] = case.frame
        for name in ("boxes", "scores", "probabilities", "abnormal_p"):
            arrays[f"{name}_{index}"] = getattr(case.expected, name)
        arrays[f"{_KINDS}_{index}"] = case.expected.kind_numbers
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def read_golden(data: bytes) -> list[GoldenCase]:
    """Read the cases of golden.npz, in order.

    Raises PackError if it is damaged, holds anything else, or would unpack to more than 64 MiB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = _read_arrays(archive)
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive makes zipfile raise almost anything
        raise PackError(f"golden.npz is damaged or unsafe: {error}; reinstall the pack") from error
    return [_case(arrays, index) for index in range(_cases(arrays))]


def compare(
    expected: ExpectedRegions,
    got: Regions | None,
    *,
    box_px: float = 0.5,
    p: float = 0.02,
    abnormal_p: float = 0.1,
    score_threshold: float = 0.0,
) -> list[str]:
    """Return the differences between what the engine found and what it must find; empty if there
    are none.

    got: None for a field that failed.
    box_px: largest difference of an edge.
    p: largest difference of a score or a probability.
    abnormal_p: largest difference of abnormal_p, which moves in steps, so that a small change of a
        probability can make a larger one here.
    score_threshold: regions with a score within `p` of it may appear or disappear.
    """
    if got is None:
        return ["the field failed"]
    types = expected.probabilities.shape[1]
    if got.probabilities.shape[1] != types:
        return [f"{got.probabilities.shape[1]} types instead of {types}"]
    moved = _moved_px(expected.boxes, got.boxes)
    sure = score_threshold + p
    differences = []
    matched = np.full(len(expected.boxes), -1)
    for index in range(len(expected.boxes)):
        nearest = int(moved[index].argmin()) if moved.shape[1] else -1
        if nearest >= 0 and moved[index, nearest] <= box_px:
            matched[index] = nearest
            moved[:, nearest] = np.inf
        elif expected.scores[index] >= sure:
            differences.append(f"{_name(expected.boxes, expected.scores, index)} is not found")
    for index in np.setdiff1d(np.arange(len(got)), matched).tolist():
        if got.scores[index] >= sure:
            differences.append(f"{_name(got.boxes, got.scores, index)} is found, but not expected")
    mine = np.flatnonzero(matched >= 0)
    theirs = matched[mine]
    for what, limit, a, b in (
        ("score", p, expected.scores, got.scores),
        ("a probability", p, expected.probabilities, got.probabilities),
        ("abnormal_p", abnormal_p, expected.abnormal_p, got.abnormal_p),
        ("the kind", 0.0, expected.kind_numbers.astype(np.float32), got.kinds.astype(np.float32)),
    ):
        gaps = np.abs(a[mine] - b[theirs]).reshape(len(mine), math.prod(a.shape[1:])).max(axis=1)
        for index, gap in zip(mine.tolist(), gaps, strict=True):
            if not gap <= limit:
                where = _name(expected.boxes, expected.scores, index)
                differences.append(f"{where}: {what} differs by {gap:.3g}, more than {limit:g}")
    return differences


def compare_at_precision(
    expected: ExpectedRegions, got: Regions | None, *, precision: str, score_threshold: float
) -> list[str]:
    """Return what is wrong with the engine's results, within the limits of its precision; empty if
    nothing is.

    precision: of the networks. In fp32 every region must agree. In a lower one, boxes that are
    equally good may replace each other, which shows as one missing and one too many: a tenth of the
    regions may.
    """
    if precision == "fp32":
        return compare(expected, got, score_threshold=score_threshold)
    box_px, p, abnormal_p = _TOLERANCES.get(precision, _TOLERANCES["bf16"])
    differences = compare(
        expected,
        got,
        box_px=box_px,
        p=p,
        abnormal_p=abnormal_p,
        score_threshold=score_threshold,
    )
    allowed = 2 * (len(expected.boxes) // 10)
    return differences if got is None or len(differences) > allowed else []


def _moved_px(expected: Float32, got: Float32) -> Float32:
    """Return float32 [E, G], the largest move of an edge from each box to each."""
    return np.asarray(np.abs(expected[:, None] - got[None]).max(axis=2))


def _name(boxes: Float32, scores: Float32, index: int) -> str:
    edges = " ".join(f"{edge:.1f}" for edge in boxes[index])
    return f"region ({edges}) of score {scores[index]:.3f}"


def _read_arrays(archive: zipfile.ZipFile) -> dict[str, npt.NDArray[Any]]:
    entries = archive.infolist()
    dtypes = dict(_DTYPES)
    if any(entry.filename.startswith(_KINDS) for entry in entries):
        dtypes[_KINDS] = np.dtype(np.uint8)
    cases = len(entries) // len(dtypes)
    names = {f"{name}_{index}.npy" for name in dtypes for index in range(cases)}
    if cases > _MOST_CASES or sorted(entry.filename for entry in entries) != sorted(names):
        raise ValueError(
            f"it must hold {', '.join(_DTYPES)} of each of at most {_MOST_CASES} cases, and "
            "nothing else"
        )
    total = sum(entry.file_size for entry in entries)
    if total > _MOST_BYTES:
        raise ValueError(f"it unpacks to {total} bytes, more than {_MOST_BYTES}")
    arrays = {}
    for entry in entries:
        if entry.flag_bits & 1 or entry.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise ValueError(f"{entry.filename} is encrypted or not compressed with deflate")
        with archive.open(entry) as file:
            content = file.read(entry.file_size + 1)  # never more than the declared size
        name = entry.filename.removesuffix(".npy")
        arrays[name] = _parse_array(name, content, dtypes[re.sub(r"_[0-9]+$", "", name)])
    return arrays


def _cases(arrays: dict[str, npt.NDArray[Any]]) -> int:
    return sum(name.startswith("frame_") for name in arrays)


def _parse_array(name: str, content: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    header = _HEADER.match(content)
    if header is None:
        raise ValueError(f"{name} does not begin like an array written by np.save")
    shape = tuple(int(length) for length in header[2].split(b", "))
    rest = content[header.end() :]
    if np.dtype(header[1].decode()) != dtype or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(
            f"{name} must be {dtype.name}, as long as its shape says "
            f"(got {header[1].decode()}, shape {shape}, {len(rest)} bytes)"
        )
    return np.frombuffer(rest, dtype).reshape(shape)


def _case(arrays: dict[str, npt.NDArray[Any]], index: int) -> GoldenCase:
    frame, boxes, scores, probabilities, abnormal_p = (
        arrays[f"{name}_{index}"] for name in _DTYPES
    )
    regions = len(boxes)
    kinds = arrays.get(f"{_KINDS}_{index}", np.zeros(regions, np.uint8))
    shapes_fit = (kinds.shape == (regions,) and kinds.max(initial=0) < len(Kind)) and (
        frame.ndim == 3
        and frame.shape[2] == 3
        and frame.size > 0
        and boxes.shape == (regions, 4)
        and scores.shape == abnormal_p.shape == (regions,)
        and probabilities.ndim == 2
        and len(probabilities) == regions
        and probabilities.shape[1] > 0
    )
    if not shapes_fit or not all(
        np.isfinite(array).all() for array in (boxes, scores, probabilities, abnormal_p)
    ):
        raise PackError(
            f"golden.npz: the arrays of case {index} do not fit together or are not finite; "
            f"reinstall the pack"
        )
    return GoldenCase(
        frame=frame,
        expected=ExpectedRegions(
            boxes=boxes,
            scores=scores,
            probabilities=probabilities,
            abnormal_p=abnormal_p,
            kinds=kinds,
        ),
    )
