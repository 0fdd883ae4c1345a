"""Booster files that are not what they seem: loops, foreign inputs, broken numbers, false lengths, paths."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inference.models.inspection.ubjson import parse
from infra.prove.forging import Forgery, replace_file, ubjson

XGBOOST, LIGHTGBM = "xgboost.ubj", "lightgbm.txt"


def forged_boosters() -> list[Forgery]:
    """Return crafted boosters of both kinds."""
    return [*_xgboost(), *_lightgbm()]


def _xgboost() -> list[Forgery]:
    def of(name: str, change: Callable[[dict[str, Any]], None]) -> Forgery:
        def make(bundle: Path) -> None:
            document = parse((bundle / XGBOOST).read_bytes(), XGBOOST)
            change(document)
            replace_file(bundle, XGBOOST, ubjson(document))

        return Forgery(f"xgboost: {name}", "member", make)

    def raw(name: str, change: Callable[[bytes], bytes]) -> Forgery:
        return _raw(f"xgboost: {name}", XGBOOST, change)

    def edit(field: str, place: int, value: float) -> Callable[[dict[str, Any]], None]:
        def change(document: dict[str, Any]) -> None:
            tree = _trees(document)[0]
            tree[field] = tree[field].astype(tree[field].dtype.newbyteorder("="))
            tree[field][place] = value

        return change

    huge = b"[$d#L" + struct.pack(">q", 2**60)
    return [
        of("a child that is its own ancestor", edit("left_children", 0, 0)),
        of("a child that does not exist", edit("left_children", 0, 10_000)),
        of("a negative child", edit("right_children", 0, -7)),
        of("an input that does not exist", edit("split_indices", 0, 60_000)),
        of("a leaf that is no number", edit("split_conditions", -1, np.nan)),
        of("an infinite threshold", edit("split_conditions", 0, np.inf)),
        of("a parent of another tree", edit("parents", 1, 9_999)),
        of("a split by category", edit("split_type", 0, 1)),
        of("a default that is neither side", edit("default_left", 0, 9)),
        of("an array that is too short", lambda d: _trees(d)[0].update(base_weights=_trees(d)[0]["base_weights"][:-1])),
        of("more nodes than there are", lambda d: _trees(d)[0]["tree_param"].update(num_nodes="1000000")),
        of("fewer trees than it says", lambda d: _booster(d)["model"]["trees"].pop()),
        of("another booster", lambda d: _booster(d).update(name="dart")),
        of("other inputs", lambda d: d["learner"]["learner_model_param"].update(num_feature="3")),
        of("an unknown objective", lambda d: d["learner"]["objective"].update(name="evil:objective")),
        of("a base score that is none", lambda d: d["learner"]["learner_model_param"].update(base_score="[NaN]")),
        of("an unknown field", lambda d: d.update(surprise="x")),
        raw("bytes after its end", lambda content: content + b"\x00"),
        raw("an array of 2^60 numbers", lambda content: content.replace(b"[$d#L", huge, 1)),
        raw("a key twice", lambda content: content[:-1] + ubjson({"version": [3, 2, 0]})[1:]),
        raw("nested a thousand deep", lambda _: (b"[#L" + struct.pack(">q", 1)) * 1000),
        raw("JSON instead", lambda _: b'{"learner": {}}'),
        raw("a pickle instead", lambda _: b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n."),
    ]  # fmt: skip


def _raw(name: str, file: str, change: Callable[[bytes], bytes]) -> Forgery:
    def make(bundle: Path) -> None:
        replace_file(bundle, file, change((bundle / file).read_bytes()))

    return Forgery(name, "member", make)


def _booster(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["learner"]["gradient_booster"]
    return found


def _trees(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _booster(document)["model"]["trees"]
    return found


def _lightgbm() -> list[Forgery]:
    def of(name: str, change: Callable[[str], str]) -> Forgery:
        def make(bundle: Path) -> None:
            before = (bundle / LIGHTGBM).read_text()
            after = change(before)
            assert after != before, name
            replace_file(bundle, LIGHTGBM, _sized(after).encode())

        return Forgery(f"lightgbm: {name}", "member", make)

    def raw(name: str, change: Callable[[bytes], bytes]) -> Forgery:
        return _raw(f"lightgbm: {name}", LIGHTGBM, change)

    return [
        of("a child that is its own ancestor", lambda text: _first_value(text, "left_child", "0")),
        of("a child that does not exist", lambda text: _first_value(text, "left_child", "4096")),
        of("a leaf that does not exist", lambda text: _first_value(text, "right_child", "-4096")),
        of("an input that does not exist", lambda text: _first_value(text, "split_feature", "60000")),
        of("a leaf that is no number", lambda text: _first_value(text, "leaf_value", "nan")),
        of("an infinite threshold", lambda text: _first_value(text, "threshold", "inf")),
        of("a split by category", lambda text: _first_value(text, "decision_type", "1")),
        of("more leaves than there are", lambda text: _first_value(text, "num_leaves", "1000000")),
        of("fewer leaves than there are", lambda text: _first_value(text, "num_leaves", "2")),
        of("categories", lambda text: _first_value(text, "num_cat", "1")),
        of("a line twice", lambda text: text.replace("\nnum_cat=0\n", "\nnum_cat=0\nnum_cat=0\n", 1)),
        of("an unknown line", lambda text: text.replace("\nnum_cat=0\n", "\nnum_cat=0\nsurprise=1\n", 1)),
        of("other inputs", lambda text: _first_value(text, "max_feature_idx", "1")),
        of("several classes", lambda text: _first_value(text, "num_class", "7")),
        of("an unknown objective", lambda text: _first_value(text, "objective", "evil")),
        of("a file to read", lambda text: text.replace("splits_filename: ]", "splits_filename: /etc/passwd]")),
        of("categories of pandas", lambda text: text.replace("pandas_categorical:null", 'pandas_categorical:[["a"]]')),
        of("more after its end", lambda text: text + "Tree=0\n"),
        raw("sizes that are untrue", lambda content: content.replace(b"\ntree_sizes=", b"\ntree_sizes=9", 1)),
        raw("bytes that are no text", lambda content: content + b"\xff\xfe"),
        raw("a zero byte", lambda content: content.replace(b"Tree=1\n", b"Tree=1\x00", 1)),
        raw("half of it", lambda content: content[: len(content) // 2]),
    ]  # fmt: skip


def _first_value(text: str, name: str, value: str) -> str:
    """Replace the first number of the first line of a name."""
    before, found, rest = text.partition(f"\n{name}=")
    old, blank, tail = rest.partition("\n")
    first, space, others = old.partition(" ")
    assert found, name
    assert first != value, name
    return f"{before}{found}{value}{space}{others}{blank}{tail}"


def _sized(text: str) -> str:
    """Mend the sizes of the trees, so that what is refused is what was changed."""
    head, blank, rest = text.partition("\n\n")
    trees = rest.partition("end of trees\n")[0]
    sizes = [len("Tree=" + one) for one in trees.split("Tree=")[1:]]
    lines = [
        "tree_sizes=" + " ".join(map(str, sizes)) if line.startswith("tree_sizes=") else line
        for line in head.split("\n")
    ]
    return "\n".join(lines) + blank + rest
