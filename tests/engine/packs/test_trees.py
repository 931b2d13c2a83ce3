"""Callers of a stranger: what treelite would believe, and crash or hang on, is a PackError at open."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import treelite
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from rbc_engine.errors import PackError
from rbc_engine.lanes.lanes import lane_maker
from rbc_engine.meter import Meter
from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.packs.trees import check_trees

from .pack_edits import put

TYPES = 12


@pytest.fixture(scope="module")
def shipped() -> bytes:
    return Pack.open(find_pack("chula12")).read("caller.treelite")


@pytest.fixture(scope="module")
def deep() -> treelite.Model:
    """Trees of up to 15 nodes, written by treelite itself."""
    rng = np.random.default_rng(0)
    features = rng.random((400, TYPES), np.float32)
    model = GradientBoostingClassifier(n_estimators=5, max_depth=3, random_state=0)
    model.fit(features, features[:, 0] + features[:, 3] * features[:, 5] > 0.8)
    return treelite.sklearn.import_model(model)


def changed(model: treelite.Model, field: str, node: int, value: float, *, tree: int = 2) -> bytes:
    """The checkpoint with one number of one tree changed; the model is left as it was."""
    copy = treelite.Model.deserialize_bytes(model.serialize_bytes())
    accessor = copy.get_tree_accessor(tree)
    values = np.array(accessor.get_field(field))
    values[node] = value
    accessor.set_field(field, values)
    return copy.serialize_bytes()


def test_what_treelite_and_training_write_is_let_through(shipped, deep):
    check_trees(shipped, features=TYPES)
    check_trees(deep.serialize_bytes(), features=TYPES)


@pytest.mark.parametrize(
    ("field", "node", "value", "says"),
    [
        ("cleft", 0, 0, "must come after it"),
        ("cright", 1, 0, "must come after it"),
        ("cleft", 0, 10_000, "must come after it"),
        ("cleft", 0, -5, "must come after it"),
        ("cleft", 0, 2, "child of exactly one"),
        ("split_index", 0, TYPES, "feature from 0 to 11"),
        ("split_index", 1, -1, "feature from 0 to 11"),
        ("threshold", 0, np.nan, "finite"),
        ("threshold", 0, np.inf, "finite"),
        ("leaf_value", -1, np.nan, "finite"),
        ("node_type", 0, 2, "leaf or split"),
        ("node_type", 0, 0, "child of exactly one"),
        ("cmp", 0, 77, "compare"),
        ("cleft", -1, 3, "no children"),
    ],
)
def test_a_tree_that_is_none_is_refused(deep, field, node, value, says):
    with pytest.raises(PackError, match=f"caller.treelite .*tree 2: .*{says}"):
        check_trees(changed(deep, field, node, value), features=TYPES)


def test_other_models_are_refused(deep):
    header = deep.get_header_accessor()
    with pytest.raises(PackError, match=r"num_feature must be 6 \(got 12\)"):
        check_trees(deep.serialize_bytes(), features=6)
    rng = np.random.default_rng(0)
    forest = RandomForestClassifier(n_estimators=3, max_depth=2).fit(
        rng.random((50, TYPES)), rng.integers(0, 3, 50)
    )
    with pytest.raises(PackError, match="task_type"):
        check_trees(treelite.sklearn.import_model(forest).serialize_bytes(), features=TYPES)
    for name, value in (("sigmoid_alpha", np.float32(np.nan)), ("base_scores", np.inf)):
        copy = treelite.Model.deserialize_bytes(deep.serialize_bytes())
        header = copy.get_header_accessor()
        header.set_field(name, np.array([value], np.asarray(header.get_field(name)).dtype))
        with pytest.raises(PackError, match=name):
            check_trees(copy.serialize_bytes(), features=TYPES)


def test_every_cut_and_every_changed_byte_is_refused_or_predicts(shipped, deep):
    """What is let through is then run by treelite: a crash would end this process."""
    whole = deep.serialize_bytes()
    for data in (whole, shipped):
        for length in range(0, len(data), 97):
            with pytest.raises(PackError):
                check_trees(data[:length], features=TYPES)
        with pytest.raises(PackError, match="1 bytes follow"):
            check_trees(data + b"\0", features=TYPES)
    rng = np.random.default_rng(2)
    rows = rng.random((8, TYPES), np.float32)
    let_through = 0
    for at in rng.permutation(len(whole))[:3000]:
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        try:
            check_trees(bytes(data), features=TYPES)
        except PackError:
            continue
        let_through += 1
        treelite.gtil.predict(treelite.Model.deserialize_bytes(bytes(data)), rows, nthread=1)
    assert let_through > 500


def test_a_pack_with_a_bad_tree_does_not_open(tmp_path: Path, deep):
    pack = Path(shutil.copytree(find_pack("chula12"), tmp_path / "pack"))
    put(pack, "caller.treelite", changed(deep, "cleft", 0, 0))
    with pytest.raises(PackError, match="tree 2"):
        Pack.open(pack)


def test_a_caller_must_call_as_the_golden_regions_say(tmp_path: Path, deep):
    pack = Path(shutil.copytree(find_pack("chula12"), tmp_path / "pack"))
    lane_maker(Pack.open(pack), meter=Meter())
    put(pack, "caller.treelite", deep.serialize_bytes())
    with pytest.raises(PackError, match="another abnormal_p for [0-9]+ of [0-9]+ golden regions"):
        lane_maker(Pack.open(pack), meter=Meter())
