"""A booster of XGBoost as UBJSON: trees that are trees, over the inputs that the manifest names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.models.inspection.refusal import Fault, InspectionError, require
from inference.models.inspection.ubjson import parse

_OBJECTIVES = frozenset({
    "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:quantileerror", "binary:logistic",
    "binary:logitraw", "multi:softprob", "reg:logistic",
})  # fmt: skip
_MAX_TREES = 20_000
_MAX_NODES = 5_000_000
_NO_PARENT = 2**31 - 1
_PER_NODE = (
    "base_weights", "default_left", "left_children", "loss_changes", "parents", "right_children", "split_conditions",
    "split_indices", "split_type", "sum_hessian",
)  # fmt: skip
_CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
_FLOATS = frozenset({"base_weights", "loss_changes", "split_conditions", "sum_hessian"})
_NUMBERS = re.compile(r"\[?[-+0-9.eE]+(,[-+0-9.eE]+)*\]?")


def inspect_xgboost(content: bytes, width: int, what: str) -> None:
    """
    Refuse a file that is no plain ensemble of numerical trees over `width` inputs.

    Raises:
        InspectionError: The UBJSON is damaged, or a tree has a loop, an orphan, a foreign input or a broken number.
    """
    document = _fields(parse(content, what), {"learner", "version"}, what)
    version = document["version"]
    require(
        isinstance(version, list) and len(version) == 3 and version[0] in (2, 3),
        Fault.STRUCTURE,
        f"{what} is of XGBoost version {version!r:.40}, 2 or 3 was expected",
    )
    learner = _fields(
        document["learner"],
        {"attributes", "feature_names", "feature_types", "gradient_booster", "learner_model_param", "objective"},
        what,
    )
    _check_texts(learner["attributes"], what)
    for name in ("feature_names", "feature_types"):
        require(learner[name] == [], Fault.STRUCTURE, f"{what} brings its own {name}; inputs are named in the manifest")
    booster = _fields(learner["gradient_booster"], {"model", "name"}, what)
    require(booster["name"] == "gbtree", Fault.STRUCTURE, f"{what} is a {booster['name']!r:.40}, gbtree was expected")
    objective = learner["objective"]
    require(
        isinstance(objective, dict) and objective.get("name") in _OBJECTIVES,
        Fault.STRUCTURE,
        f"{what} has an unknown objective",
    )
    groups = _check_parameters(learner["learner_model_param"], width, what)
    _check_trees(booster["model"], width, groups, what)


def _check_parameters(parameters: Any, width: int, what: str) -> int:
    """Return how many answers a row has."""
    parameters = _fields(
        parameters, {"base_score", "boost_from_average", "num_class", "num_feature", "num_target"}, what
    )
    _check_texts(parameters, what)
    score = parameters["base_score"]
    require(_NUMBERS.fullmatch(score) is not None, Fault.STRUCTURE, f"{what} has the base score {score[:40]!r}")
    values = np.array(score.strip("[]").split(","), np.float64) if _all_floats(score) else np.array([np.nan])
    require(bool(np.isfinite(values).all()), Fault.NOT_FINITE, f"{what} has the base score {score[:40]!r}")
    found = _integer(parameters["num_feature"], what)
    require(found == width, Fault.WRONG_WIDTH, f"{what} reads {found} inputs, the manifest names {width}")
    groups = max(_integer(parameters["num_class"], what), _integer(parameters["num_target"], what), 1)
    require(groups <= 64 and len(values) in (1, groups), Fault.STRUCTURE, f"{what} answers {groups} numbers a row")
    return groups


def _all_floats(score: str) -> bool:
    try:
        return all(float(one) is not None for one in score.strip("[]").split(","))
    except ValueError:
        return False


def _check_trees(model: Any, width: int, groups: int, what: str) -> None:
    require(
        isinstance(model, dict) and {"gbtree_model_param", "trees", "tree_info"} <= set(model)
        and set(model) <= {"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"},
        Fault.STRUCTURE,
        f"{what} has no trees where they belong",
    )  # fmt: skip
    trees, info = model["trees"], model["tree_info"]
    count = len(trees) if isinstance(trees, list) else -1
    require(1 <= count <= _MAX_TREES, Fault.STRUCTURE, f"{what} has {count} trees, 1 to {_MAX_TREES} were expected")
    told = model["gbtree_model_param"]
    require(
        isinstance(told, dict) and set(told) <= {"num_parallel_tree", "num_trees"}
        and _integer(told.get("num_trees"), what) == count
        and 1 <= _integer(told.get("num_parallel_tree"), what) <= count,
        Fault.STRUCTURE,
        f"{what} has {count} trees and says otherwise",
    )  # fmt: skip
    groups_of = _whole_numbers(info, what)
    require(
        len(groups_of) == count and bool(((groups_of >= 0) & (groups_of < groups)).all()),
        Fault.STRUCTURE,
        f"{what} has trees that answer no question",
    )
    rounds = _whole_numbers(model.get("iteration_indptr", [0, count]), what)
    require(
        len(rounds) >= 2 and rounds[0] == 0 and rounds[-1] == count and bool((np.diff(rounds) > 0).all()),
        Fault.STRUCTURE,
        f"{what} has rounds that are not made of its trees",
    )
    require(_is_empty(model.get("cats", {})), Fault.STRUCTURE, f"{what} holds categories")
    nodes = 0
    for number, tree in enumerate(trees):
        nodes += _check_tree(tree, number, width, f"{what}, tree {number}")
        require(nodes <= _MAX_NODES, Fault.OVERSIZE, f"{what} has more than {_MAX_NODES} nodes")


def _check_tree(tree: Any, number: int, width: int, what: str) -> int:
    tree = _fields(tree, {*_PER_NODE, *_CATEGORIES, "id", "tree_param"}, what)
    size = _fields(tree["tree_param"], {"num_deleted", "num_feature", "num_nodes", "size_leaf_vector"}, what)
    n = _integer(size["num_nodes"], what)
    require(
        tree["id"] == number and n >= 1 and _integer(size["num_deleted"], what) == 0
        and _integer(size["num_feature"], what) == width and _integer(size["size_leaf_vector"], what) <= 1,
        Fault.BAD_TREE,
        f"{what} is of another size than it says",
    )  # fmt: skip
    require(all(_is_empty(tree[name]) for name in _CATEGORIES), Fault.BAD_TREE, f"{what} holds categories")
    for name in _PER_NODE:
        values = tree[name]
        require(
            isinstance(values, np.ndarray) and len(values) == n and (values.dtype.kind == "f") == (name in _FLOATS),
            Fault.BAD_TREE,
            f"{what} has not one {name} a node",
        )
        if name in _FLOATS:
            require(bool(np.isfinite(values).all()), Fault.NOT_FINITE, f"{what} has {name} that are no numbers")
    require(not tree["split_type"].any(), Fault.BAD_TREE, f"{what} splits by category")
    _check_shape(tree, n, width, what)
    return n


def _check_shape(tree: dict[str, npt.NDArray[Any]], n: int, width: int, what: str) -> None:
    left, right, parents = (tree[name].astype(np.int64) for name in ("left_children", "right_children", "parents"))
    leaf = left == -1
    require(bool((leaf == (right == -1)).all()), Fault.BAD_TREE, f"{what} has a node with one child")
    inner = np.flatnonzero(~leaf)
    children = np.concatenate([left[inner], right[inner]])
    # Children come after their parents, and each node but the first is the child of one: no loop, no orphan.
    require(
        len(children) == n - 1 and np.array_equal(np.sort(children), np.arange(1, n))
        and bool((children > np.tile(inner, 2)).all()),
        Fault.BAD_TREE,
        f"{what} is no tree: a child is missing, shared or its own ancestor",
    )  # fmt: skip
    require(
        parents[0] in (_NO_PARENT, -1) and np.array_equal(parents[children], np.tile(inner, 2)),
        Fault.BAD_TREE,
        f"{what} has children that name another parent",
    )
    splits = tree["split_indices"][inner].astype(np.int64)
    require(
        bool(((splits >= 0) & (splits < width)).all()), Fault.WRONG_WIDTH, f"{what} reads an input that does not exist"
    )
    require(bool((tree["default_left"] <= 1).all()), Fault.BAD_TREE, f"{what} has a default that is neither side")


def _fields(value: Any, names: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != names:
        found = sorted(value)[:12] if isinstance(value, dict) else type(value).__name__
        raise InspectionError(Fault.STRUCTURE, f"{what} should have the fields {sorted(names)}, has {found}")
    return value


def _check_texts(value: Any, what: str) -> None:
    require(
        isinstance(value, dict) and all(isinstance(one, str) and len(one) <= 10_000 for one in value.values()),
        Fault.STRUCTURE,
        f"{what} has attributes that are no texts",
    )


def _integer(text: Any, what: str) -> int:
    if not isinstance(text, str) or re.fullmatch(r"[0-9]{1,9}", text) is None:
        raise InspectionError(Fault.STRUCTURE, f"{what} has {text!r:.40} where a number was expected")
    return int(text)


def _whole_numbers(values: Any, what: str) -> npt.NDArray[np.int64]:
    plain = isinstance(values, np.ndarray) and values.dtype.kind in "iu"
    listed = isinstance(values, list) and all(type(one) is int for one in values)
    require(plain or listed, Fault.STRUCTURE, f"{what} has something else where a list of numbers was expected")
    return np.asarray(values, np.int64)


def _is_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_empty(one) for one in value.values())
    return isinstance(value, list | np.ndarray) and len(value) == 0
