"""Run the pack's caller as scikit-learn's own gradient boosting, with which it was trained."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import treelite
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeRegressor
from sklearn.tree._tree import Tree

from rbc_engine.bench.peers.base import PeerMissingError
from rbc_engine.packs.pack import Pack

__all__ = ["sklearn_caller"]

_TOLERANCE = 1e-6
_CHECKED = 500


def sklearn_caller(pack: Pack) -> GradientBoostingClassifier:
    """Build a GradientBoostingClassifier from the pack's trees.

    A pack stores the caller as a treelite checkpoint. Its trees are put into a scikit-learn model,
    so that scikit-learn is timed. Raises PeerMissingError if the results of that model differ from
    treelite's.
    """
    model = treelite.Model.deserialize_bytes(pack.read("caller.treelite"))
    dump = json.loads(model.dump_as_json(pretty_print=False))
    features = int(dump["num_feature"])
    rng = np.random.default_rng(0)
    probabilities = rng.random((_CHECKED, features)).astype(np.float32)
    boosting = GradientBoostingClassifier(
        n_estimators=len(dump["trees"]), max_depth=1, learning_rate=1.0, init="zero"
    )
    boosting.fit(probabilities, np.arange(_CHECKED) % 2)  # the frame into which the trees go
    base = float(np.ravel(dump["base_scores"])[0])
    alpha = float(dump["sigmoid_alpha"])  # one over the caller's temperature
    for index, tree in enumerate(dump["trees"]):
        # The initial value of every sum goes into the leaves of the first tree.
        boosting.estimators_[index, 0] = _regressor(
            tree, features, add=0.0 if index else base, scale=alpha
        )
    expected = treelite.gtil.predict(model, probabilities).reshape(_CHECKED, -1)[:, -1]
    difference = float(np.abs(boosting.predict_proba(probabilities)[:, 1] - expected).max())
    if not difference <= _TOLERANCE:
        raise PeerMissingError(
            f"the pack's caller as scikit-learn differs from treelite's by {difference:.2g}"
        )
    return boosting


def _regressor(
    tree: dict[str, Any], features: int, *, add: float, scale: float
) -> DecisionTreeRegressor:
    nodes = {node["node_id"]: node for node in tree["nodes"]}
    places = {key: place for place, key in enumerate(nodes)}
    records = np.zeros(len(nodes), Tree(features, np.array([1]), 1).__getstate__()["nodes"].dtype)
    values = np.zeros((len(nodes), 1, 1))
    for key, node in nodes.items():
        record = records[places[key]]
        if "leaf_value" in node:
            record["left_child"] = record["right_child"] = -1
            record["feature"] = -2
            values[places[key], 0, 0] = scale * (float(np.ravel(node["leaf_value"])[0]) + add)
            continue
        if node["comparison_op"] != "<=":
            raise PeerMissingError(
                f"the pack's caller compares by {node['comparison_op']}, scikit-learn by <="
            )
        record["left_child"] = places[node["left_child"]]
        record["right_child"] = places[node["right_child"]]
        record["feature"] = node["split_feature_id"]
        record["threshold"] = node["threshold"]
    made = Tree(features, np.array([1]), 1)
    made.__setstate__(
        {
            "max_depth": len(nodes),
            "node_count": len(nodes),
            "nodes": records,
            "values": values,
        }
    )
    regressor = DecisionTreeRegressor()
    regressor.n_features_in_, regressor.n_outputs_ = features, 1
    regressor.tree_ = made
    return regressor
