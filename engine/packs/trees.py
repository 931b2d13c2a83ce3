"""Check caller.treelite before treelite sees it, which believes every number in it.

The file may come from an untrusted source. Its layout is that of treelite's checkpoints of version
4: every array is a count in 8 bytes and so many values, little-endian. All of it is read here, and
only what a caller needs is allowed: one sum of trees with thresholds, through a sigmoid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rbc_engine.errors import PackError

__all__ = ["check_trees"]

_VERSION = 4
_MOST_BYTES = 64 << 20
_MOST_TREES = 10_000
_MOST_NODES = 1_000_000
_MOST_TEXT = 1 << 16
_FLOATS = {2: np.dtype("<f4"), 3: np.dtype("<f8")}
_BINARY_TASK = 0
_LEAF, _NUMERICAL = 0, 1
_COMPARISONS = (2, 3, 4, 5)  # < <= > >=
_BYTE, _SIGNED_BYTE = np.dtype("u1"), np.dtype("i1")
_INT, _LONG = np.dtype("<i4"), np.dtype("<u8")
_DOUBLE = np.dtype("<f8")
# What treelite keeps of training, each with whether it is there.
_STATISTICS = (("data_count", _LONG), ("sum_hess", _DOUBLE), ("gain", _DOUBLE))


def check_trees(data: bytes, *, features: int) -> None:
    """Check a treelite checkpoint.

    features: how many each tree may ask about.

    Raises PackError unless it is exactly as long as it says, every tree is one (the children of a
    node come after it, and every node but the first has one parent), every feature is one of
    `features`, and every number is finite.
    """
    try:
        _check(data, features)
    except ValueError as error:
        raise PackError(
            f"caller.treelite is damaged or unsafe: {error}; reinstall the pack, or train its "
            "caller again"
        ) from error


def _check(data: bytes, features: int) -> None:
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than {_MOST_BYTES}")
    file = _Reader(data)
    version = file.values(3, _INT).tolist()
    if version[0] != _VERSION:
        raise ValueError(
            f"it was written by treelite {version[0]}.{version[1]}, but this program reads "
            f"checkpoints of treelite {_VERSION}"
        )
    threshold_type, leaf_type = file.values(2, _BYTE).tolist()
    if threshold_type not in _FLOATS or leaf_type != threshold_type:
        raise ValueError(f"its types must be float or double (got {threshold_type}, {leaf_type})")
    trees = file.number(_LONG)
    if not 1 <= trees <= _MOST_TREES:
        raise ValueError(f"it must have 1..{_MOST_TREES} trees (got {trees})")
    _check_header(file, features=features, trees=trees)
    nodes = 0
    for index in range(trees):
        try:
            nodes += _check_tree(file, _FLOATS[threshold_type], features=features)
        except ValueError as error:
            raise ValueError(f"tree {index}: {error}") from error
        if nodes > _MOST_NODES:
            raise ValueError(f"it has more than {_MOST_NODES} nodes")
    file.finish()


def _check_header(file: _Reader, *, features: int, trees: int) -> None:
    _must_be("num_feature", file.number(_INT), features)
    _must_be("task_type", file.number(_BYTE), _BINARY_TASK)
    _must_be("average_tree_output", file.number(_BYTE), 0)
    _must_be("num_target", file.number(_INT), 1)
    _must_be("num_class", file.array(_INT, most=1).tolist(), [1])
    _must_be("leaf_vector_shape", file.array(_INT, most=2).tolist(), [1, 1])
    for name in ("target_id", "class_id"):
        ids = file.array(_INT, most=trees)
        if len(ids) != trees or ids.any():
            raise ValueError(f"{name} must be 0 for each of {trees} trees")
    postprocessor = file.array(_BYTE, most=_MOST_TEXT).tobytes()
    _must_be("postprocessor", postprocessor, b"sigmoid")
    alpha, ratio = file.values(2, np.dtype("<f4")).tolist()
    if not 0 < alpha < 1e6 or not np.isfinite(ratio):
        raise ValueError(f"sigmoid_alpha must be within 0..1e6 (got {alpha})")
    base = file.array(_DOUBLE, most=1)
    if len(base) != 1 or not np.isfinite(base).all():
        raise ValueError(f"base_scores must be one finite number (got {base.tolist()})")
    file.array(_BYTE, most=_MOST_TEXT)  # attributes, a note
    _must_be("fields of newer versions", file.number(_INT), 0)


def _check_tree(file: _Reader, number: np.dtype[Any], *, features: int) -> int:
    """Check one tree. Returns how many nodes it has."""
    count = file.number(_INT)
    if not 1 <= count <= _MOST_NODES:
        raise ValueError(f"it must have 1..{_MOST_NODES} nodes (got {count})")
    _must_be("has_categorical_split", file.number(_BYTE), 0)
    kinds = file.exactly("node_type", count, _SIGNED_BYTE)
    left = file.exactly("cleft", count, _INT)
    right = file.exactly("cright", count, _INT)
    feature = file.exactly("split_index", count, _INT)
    file.flags("default_left", count)
    leaf = file.exactly("leaf_value", count, number)
    threshold = file.exactly("threshold", count, number)
    comparison = file.exactly("cmp", count, _SIGNED_BYTE)
    file.flags("category_list_right_child", count)
    _must_be("leaf_vector", len(file.array(number, most=0)), 0)
    for name in ("leaf_vector_begin", "leaf_vector_end"):
        _must_be(name, bool(file.exactly(name, count, _LONG).any()), False)
    _must_be("category_list", len(file.array(np.dtype("<u4"), most=0)), 0)
    for name in ("category_list_begin", "category_list_end"):
        _must_be(name, bool(file.exactly(name, count, _LONG).any()), False)
    for name, dtype in _STATISTICS:
        if len(file.array(dtype, most=count)) not in (0, count):
            raise ValueError(f"{name} must have no or {count} values")
        file.flags(f"{name}_present", count, optional=True)
    _must_be("fields of newer versions", file.values(2, _INT).tolist(), [0, 0])

    splits = kinds == _NUMERICAL
    if not (splits | (kinds == _LEAF)).all():
        raise ValueError("every node must be a leaf or split by a threshold")
    own = np.flatnonzero(splits)
    children = np.concatenate([left[own], right[own]]).astype(np.int64)
    if not ((children > np.concatenate([own, own])) & (children < count)).all():
        raise ValueError(f"the children of a node must come after it, up to node {count - 1}")
    if not np.array_equal(np.sort(children), np.arange(1, count)):
        raise ValueError("every node but the first must be the child of exactly one")
    if not ((left[~splits] == -1) & (right[~splits] == -1)).all():
        raise ValueError("a leaf must have no children")
    if not ((feature[own] >= 0) & (feature[own] < features)).all():
        raise ValueError(f"a split must ask about a feature from 0 to {features - 1}")
    if not np.isin(comparison[own], _COMPARISONS).all():
        raise ValueError("a split must compare with < <= > or >=")
    if not (np.isfinite(threshold).all() and np.isfinite(leaf).all()):
        raise ValueError("thresholds and leaves must be finite")
    return int(count)


def _must_be(name: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise ValueError(f"{name} must be {wanted!r} (got {got!r:.80})")


class _Reader:
    """Read values one after another, never more than there are."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def values(self, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        size = count * dtype.itemsize
        if size > len(self._data) - self._at:
            raise ValueError(f"it ends at byte {len(self._data)}, in the middle of an array")
        values = np.frombuffer(self._data, dtype, count, self._at)
        self._at += size
        return values

    def number(self, dtype: np.dtype[Any]) -> int:
        return int(self.values(1, dtype)[0])

    def array(self, dtype: np.dtype[Any], *, most: int) -> npt.NDArray[Any]:
        count = self.number(_LONG)
        if count > most:
            raise ValueError(f"an array of {count} values, where at most {most} can be")
        return self.values(count, dtype)

    def exactly(self, name: str, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        values = self.array(dtype, most=count)
        if len(values) != count:
            raise ValueError(f"{name} must have {count} values (got {len(values)})")
        return values

    def flags(self, name: str, count: int, *, optional: bool = False) -> None:
        values = self.array(_BYTE, most=count)
        if len(values) != count and not (optional and not len(values)):
            raise ValueError(f"{name} must have {count} values (got {len(values)})")
        if len(values) and values.max() > 1:
            raise ValueError(f"{name} must be 0 or 1")

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes follow the last tree")
