"""ONNX graphs over single rows, written node by node: a chain of layers behind a scaler, and a forest of trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from flows.training.dataset import Floats, Inputs

CUT = 5.0
"""Scaled inputs are cut here, in training and in the graph alike: one bad tick must not swamp a row."""
_OPSETS = (("", 18), ("ai.onnx.ml", 3))


@dataclass(frozen=True, slots=True, eq=False)
class RowScale:
    """Centre and spread of columns, measured on the fit window."""

    centre: Floats
    spread: Floats

    @classmethod
    def of(cls, columns: Inputs) -> RowScale:
        """Measure columns [n, k]; one that never moves is left where it is."""
        values = columns.astype(np.float64)
        spread = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(spread > 1e-9, spread, 1.0))

    def scaled(self, columns: Inputs) -> Floats:
        """Return what is learned from, [n, k]."""
        return np.clip((columns.astype(np.float64) - self.centre) / self.spread, -CUT, CUT)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One affine map, `weights` [in, out] and `bias` [out]."""

    weights: Floats
    bias: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """
    One regression tree as arrays, one entry a node.

    Rows of which column `feature` is at most `threshold` go to `left`, others to `right`; a leaf has -1 for both.
    """

    feature: npt.NDArray[np.int64]
    threshold: Floats
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: Floats


def chain_graph(name: str, scale: RowScale, layers: Sequence[Layer]) -> bytes:
    """Return a graph that scales and cuts its `rows` [n, k] and sends them through layers, with ReLU between two."""
    constants: dict[str, npt.ArrayLike] = {"centre": scale.centre, "spread": scale.spread, "low": -CUT, "high": CUT}
    nodes = [
        helper.make_node("Cast", ["rows"], ["exact"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["exact", "centre"], ["centred"]),
        helper.make_node("Div", ["centred", "spread"], ["scaled"]),
        helper.make_node("Clip", ["scaled", "low", "high"], ["layer_0"]),
    ]
    last = len(layers) - 1
    for place, layer in enumerate(layers):
        constants |= {f"weights_{place}": layer.weights, f"bias_{place}": layer.bias}
        out = f"layer_{place + 1}"
        affine = [f"layer_{place}", f"weights_{place}", f"bias_{place}"]
        nodes.append(helper.make_node("Gemm", affine, [out if place == last else f"{out}_raw"]))
        if place < last:
            nodes.append(helper.make_node("Relu", [f"{out}_raw"], [out]))
    return _guarded(name, nodes, constants, f"layer_{last + 1}", width=len(scale.centre))


def forest_graph(name: str, trees: Sequence[Tree], *, width: int) -> bytes:
    """Return a graph that answers `rows` [n, width] with the mean of the trees; thresholds keep their double bits."""
    tree = np.concatenate([np.full(len(one.feature), place) for place, one in enumerate(trees)])
    node = np.concatenate([np.arange(len(one.feature)) for one in trees])
    left = np.concatenate([one.left for one in trees])
    is_leaf = left < 0
    leaf_value = np.concatenate([one.value for one in trees])[is_leaf] / len(trees)
    thresholds = np.where(is_leaf, 0.0, np.concatenate([one.threshold for one in trees]))
    ensemble = helper.make_node(
        "TreeEnsembleRegressor", ["exact"], ["mean"], domain="ai.onnx.ml",
        aggregate_function="SUM", n_targets=1, post_transform="NONE",
        nodes_treeids=tree.tolist(), nodes_nodeids=node.tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_featureids=np.where(is_leaf, 0, np.concatenate([one.feature for one in trees])).tolist(),
        nodes_values_as_tensor=numpy_helper.from_array(thresholds, "thresholds"),
        nodes_truenodeids=np.where(is_leaf, 0, left).tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, np.concatenate([one.right for one in trees])).tolist(),
        nodes_missing_value_tracks_true=[0] * len(tree),
        target_treeids=tree[is_leaf].tolist(), target_nodeids=node[is_leaf].tolist(),
        target_ids=[0] * int(is_leaf.sum()),
        target_weights_as_tensor=numpy_helper.from_array(leaf_value, "leaves"),
    )  # fmt: skip
    cast = helper.make_node("Cast", ["rows"], ["exact"], to=TensorProto.DOUBLE)
    # The operator sums in double and answers in float.
    back = helper.make_node("Cast", ["mean"], ["answer"], to=TensorProto.DOUBLE)
    return _guarded(name, [cast, ensemble, back], {}, "answer", width=width)


def _guarded(
    name: str, nodes: list[onnx.NodeProto], constants: Mapping[str, npt.ArrayLike], answer: str, *, width: int
) -> bytes:
    """Finish a graph so that an undefined input gives an undefined answer: Clip, Relu and trees swallow NaN."""
    zero = {"nothing": np.zeros((width, 1))}
    nodes += [
        helper.make_node("MatMul", ["exact", "nothing"], ["guard"]),
        helper.make_node("Add", [answer, "guard"], ["expected_return"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("expected_return", TensorProto.DOUBLE, ["batch", 1])],
        [
            numpy_helper.from_array(np.asarray(value, np.float64), key)
            for key, value in (*constants.items(), *zero.items())
        ],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="quantum-trader")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
