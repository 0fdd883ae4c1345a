"""
A booster of LightGBM as text, version 4: the lines it writes and no others, and trees that are trees.

LightGBM's own reader trusts the lengths and links it is given; a wrong one makes it read beyond its arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from inference.models.inspection.refusal import Fault, InspectionError, require

_MAX_TREES = 20_000
_MAX_LEAVES = 100_000
_HEADER = frozenset({
    "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
    "monotone_constraints", "feature_infos", "tree_sizes", "average_output",
})  # fmt: skip
_OBJECTIVE = re.compile(
    r"(regression|regression_l1|huber|fair|quantile|binary|cross_entropy|multiclass)( [a-z_]+:[-+0-9.e]+| sqrt)*"
)
_WHOLE = frozenset({"split_feature", "decision_type", "left_child", "right_child", "leaf_count", "internal_count"})
_PER_SPLIT = (
    "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child", "internal_value",
    "internal_weight", "internal_count",
)  # fmt: skip
_PER_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
_LINEAR = frozenset({"leaf_const", "num_features", "leaf_features", "leaf_coeff"})
_SINGLE = frozenset({"num_leaves", "num_cat", "is_linear", "shrinkage"})
_TREE_KEYS = _SINGLE | _LINEAR | frozenset(_PER_SPLIT) | frozenset(_PER_LEAF)
_END = "end of trees\n"
_TAIL = re.compile(
    r"\nfeature_importances:\n(?:[A-Za-z0-9_]+=[0-9]+\n)*\nparameters:\n(?:\[[a-z0-9_]+: [^\]\n]*\]\n)*"
    r"\nend of parameters\n\npandas_categorical:null\n?"
)
# Numerical splits only: bit 0 would be a category.
_CATEGORY = 1


def inspect_lightgbm(content: bytes, width: int, what: str) -> None:
    """
    Refuse a file that is no plain ensemble of numerical trees over `width` inputs, with or without linear leaves.

    Raises:
        InspectionError: A line is unknown, missing or twice, a length differs from what is said of it, a tree has a
            loop, an orphan, a foreign input or a number that is none, or there is a path in it.
    """
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError as error:
        raise InspectionError(Fault.STRUCTURE, f"{what} is no ASCII text") from error
    # Parameters may name files to be read; a model needs none, and nothing else in it has a slash.
    require("/" not in text and "\\" not in text, Fault.EXTERNAL_DATA, f"{what} holds a path")
    head, blank, rest = text.partition("\n\n")
    require(bool(blank), Fault.TRUNCATED, f"{what} ends before its first tree")
    sizes = _check_header(head, width, what)
    total = sum(sizes)
    require(
        rest[total : total + len(_END)] == _END,
        Fault.STRUCTURE,
        f"{what} has trees of {total} bytes by its own account, and no end after them",
    )
    require(
        _TAIL.fullmatch(rest, total + len(_END)) is not None,
        Fault.TRAILING_BYTES,
        f"{what} ends otherwise than LightGBM ends a file",
    )
    at = 0
    for number, size in enumerate(sizes):
        _check_tree(rest[at : at + size], number, width, f"{what}, tree {number}")
        at += size


def _check_header(head: str, width: int, what: str) -> list[int]:
    """Return how long each tree is."""
    first, _, lines = head.partition("\n")
    require(first == "tree", Fault.STRUCTURE, f"{what} is no tree model")
    # The one line without a value.
    fields = _fields(lines.replace("\naverage_output\n", "\naverage_output=\n"), _HEADER, what)
    for name, expected in (
        ("version", "v4"),
        ("num_class", "1"),
        ("num_tree_per_iteration", "1"),
        ("label_index", "0"),
    ):
        require(fields.get(name) == expected, Fault.STRUCTURE, f"{what} has {name} {fields.get(name)!r:.40}")
    require(
        _OBJECTIVE.fullmatch(fields.get("objective", "")) is not None, Fault.STRUCTURE, f"{what} has no known objective"
    )
    reads = int(_whole(fields.get("max_feature_idx", ""), 1, what)[0]) + 1
    require(reads == width, Fault.WRONG_WIDTH, f"{what} reads {reads} inputs, the manifest names {width}")
    for name in ("feature_names", "feature_infos"):
        found = len(fields.get(name, "").split(" "))
        require(found == width, Fault.WRONG_WIDTH, f"{what} has {found} {name} for {width} inputs")
    words = fields.get("tree_sizes", "").split(" ")
    require(len(words) <= _MAX_TREES, Fault.OVERSIZE, f"{what} has more than {_MAX_TREES} trees")
    sizes = _whole(fields.get("tree_sizes", ""), len(words), what)
    require(bool((sizes > 0).all()) and bool((sizes < 2**31).all()), Fault.STRUCTURE, f"{what} has trees of no size")
    return [int(size) for size in sizes]


def _check_tree(text: str, number: int, width: int, what: str) -> None:
    start = f"Tree={number}\n"
    require(
        text.startswith(start) and text.endswith("\n\n"),
        Fault.BAD_TREE,
        f"{what} does not begin and end where it should",
    )
    fields = _fields(text[len(start) :].rstrip("\n"), _TREE_KEYS, what)
    leaves = int(_whole(fields.get("num_leaves", ""), 1, what)[0])
    require(1 <= leaves <= _MAX_LEAVES, Fault.BAD_TREE, f"{what} has {leaves} leaves")
    require(fields.get("num_cat") == "0", Fault.BAD_TREE, f"{what} splits by category")
    _floats(fields.get("shrinkage", ""), 1, what)
    splits = leaves - 1
    arrays = {name: _numbers(name, fields, splits, what) for name in _PER_SPLIT} if splits else {}
    for name in _PER_LEAF:
        # A tree that never split is written with its value alone.
        if splits or name == "leaf_value":
            _numbers(name, fields, leaves, what)
    if splits:
        _check_shape(arrays, leaves, width, what)
    linear = fields.get("is_linear")
    require(linear in ("0", "1"), Fault.BAD_TREE, f"{what} says neither that it is linear nor that it is not")
    require((linear == "1") or not _LINEAR & set(fields), Fault.BAD_TREE, f"{what} has slopes and says it has none")
    if linear == "1":
        _check_slopes(fields, leaves, width, what)


def _check_shape(arrays: Mapping[str, npt.NDArray[np.float64]], leaves: int, width: int, what: str) -> None:
    children = np.concatenate([arrays["left_child"], arrays["right_child"]]).astype(np.int64)
    inner = np.tile(np.arange(leaves - 1), 2)
    # A negative child is a leaf, by its complement. Every leaf, and every split but the first, is one child of an
    # earlier split: no loop, no orphan.
    require(
        np.array_equal(np.sort(~children[children < 0]), np.arange(leaves))
        and np.array_equal(np.sort(children[children >= 0]), np.arange(1, leaves - 1))
        and bool((children[children >= 0] > inner[children >= 0]).all()),
        Fault.BAD_TREE,
        f"{what} is no tree: a child is missing, shared or its own ancestor",
    )
    splits, kinds = arrays["split_feature"], arrays["decision_type"].astype(np.int64)
    require(
        bool(((splits >= 0) & (splits < width)).all()), Fault.WRONG_WIDTH, f"{what} reads an input that does not exist"
    )
    require(
        bool(((kinds >= 0) & (kinds < 16) & (kinds & _CATEGORY == 0)).all()),
        Fault.BAD_TREE,
        f"{what} has a split that is not by number",
    )


def _check_slopes(fields: Mapping[str, str], leaves: int, width: int, what: str) -> None:
    _floats(fields.get("leaf_const", ""), leaves, what)
    counts = _whole(fields.get("num_features", ""), leaves, what)
    total = int(counts.sum()) if bool((counts >= 0).all()) else -1
    # Each leaf's numbers are followed by one blank more, also where it has none.
    used = _whole(" ".join(fields.get("leaf_features", "").split()), max(total, 0), what)
    _floats(" ".join(fields.get("leaf_coeff", "").split()), max(total, 0), what)
    require(
        total >= 0 and bool(((used >= 0) & (used < width)).all()),
        Fault.WRONG_WIDTH,
        f"{what} has a slope on an input that does not exist",
    )
    for name in ("leaf_features", "leaf_coeff"):
        expected = leaves + total
        found = fields.get(name, "").count(" ")
        require(found == expected, Fault.BAD_TREE, f"{what} has {name} that are not grouped by leaf")


def _fields(lines: str, names: frozenset[str], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines.split("\n"):
        name, equals, value = line.partition("=")
        require(bool(equals) and name in names, Fault.STRUCTURE, f"{what} has the unknown line {line[:40]!r}")
        require(name not in found, Fault.DUPLICATE_KEY, f"{what} says {name} twice")
        found[name] = value
    return found


def _numbers(name: str, fields: Mapping[str, str], count: int, what: str) -> npt.NDArray[np.float64]:
    text = fields.get(name, "")
    if name in _WHOLE:
        return _whole(text, count, what).astype(np.float64)
    return _floats(text, count, what)


def _whole(text: str, count: int, what: str) -> npt.NDArray[np.int64]:
    words = text.split(" ") if text else []
    require(
        len(words) == count and all(re.fullmatch(r"-?[0-9]{1,10}", word) for word in words),
        Fault.BAD_TREE,
        f"{what} should have {count} whole numbers, has {text[:40]!r}",
    )
    return np.array(words, np.int64)


def _floats(text: str, count: int, what: str) -> npt.NDArray[np.float64]:
    words = text.split(" ") if text else []
    require(len(words) == count, Fault.BAD_TREE, f"{what} should have {count} numbers, has {len(words)}")
    try:
        values = np.array(words, np.float64)
    except ValueError as error:
        raise InspectionError(Fault.BAD_TREE, f"{what} has {text[:40]!r} where numbers were expected") from error
    require(bool(np.isfinite(values).all()), Fault.NOT_FINITE, f"{what} has numbers that are none")
    return values
