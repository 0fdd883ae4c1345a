"""ONNX graphs that could do more than arithmetic on their own numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from infra.prove.forging import Forgery, replace_file

GRAPH = "nhits.onnx"


def forged_graphs() -> list[Forgery]:
    """Return crafted graphs."""

    def of(name: str, change: Callable[[onnx.ModelProto], None]) -> Forgery:
        def make(bundle: Path) -> None:
            model = onnx.load_model_from_string((bundle / GRAPH).read_bytes())
            change(model)
            replace_file(bundle, GRAPH, model.SerializeToString())

        return Forgery(f"onnx: {name}", "member", make)

    def raw(name: str, change: Callable[[bytes], bytes]) -> Forgery:
        def make(bundle: Path) -> None:
            replace_file(bundle, GRAPH, change((bundle / GRAPH).read_bytes()))

        return Forgery(f"onnx: {name}", "member", make)

    return [
        of("an operator of somebody's library", lambda m: _node(m, "Run", domain="com.evil")),
        of("operators of another domain", lambda m: m.opset_import.append(helper.make_opsetid("com.evil", 1))),
        of("a loop", lambda m: _node(m, "Loop", body=_body())),
        of("a branch", lambda m: _node(m, "If", then_branch=_body(), else_branch=_body())),
        of("a graph under an allowed operator", lambda m: _node(m, "Identity", body=_body())),
        of("chance", lambda m: _node(m, "RandomNormal", shape=[4])),
        of("a function", lambda m: m.functions.append(_function())),
        of("training information", lambda m: m.training_info.append(onnx.TrainingInfoProto())),
        of("weights in another file", _external),
        of("weights that are no numbers", lambda m: _weights(m, np.nan)),
        of("infinite weights", lambda m: _weights(m, np.inf)),
        of("fewer weights than the shape says", _fewer),
        of("values in two places", lambda m: _first(m).float_data.append(1.0)),
        of("texts for weights", _texts),
        of("a sparse tensor", lambda m: m.graph.sparse_initializer.append(onnx.SparseTensorProto())),
        of("a tensor of 2^60 numbers", lambda m: _first(m).dims.__setitem__(0, 2**60)),
        of("a result of 2^60 numbers", _bomb),
        of("a size that is computed", _computed_bomb),
        of("a size taken from its input", _asked_bomb),
        of("a node before what it reads", lambda m: m.graph.node.append(_late(m))),
        of("a name made twice", lambda m: m.graph.node.append(m.graph.node[0])),
        of("an answer that nothing makes", lambda m: setattr(m.graph.output[0], "name", "nowhere")),
        of("an input that is no tensor of floats", _integers),
        of("no nodes", lambda m: m.graph.ClearField("node")),
        raw("half of it", lambda content: content[: len(content) // 2]),
        raw("an unknown field", lambda content: content + b"\xf2\x3f\x03abc"),
        # Readers of protocol buffers merge a second graph into the first.
        raw("a second graph", lambda content: content + b"\x3a\x00"),
        raw("a length beyond its end", lambda content: content + b"\x3a\xff\xff\xff\xff\x0f"),
        raw("a number without an end", lambda content: content + b"\xff" * 12),
        raw("text instead", lambda _: b"import os"),
    ]


def _node(model: onnx.ModelProto, operator: str, domain: str = "", **attributes: object) -> None:
    node = helper.make_node(operator, ["returns"], [f"made by {operator}"], domain=domain, **attributes)  # type: ignore[arg-type]
    model.graph.node.append(node)


def _body() -> onnx.GraphProto:
    return helper.make_graph([], "body", [], [])


def _function() -> onnx.FunctionProto:
    opset = [helper.make_opsetid("", 18)]
    return helper.make_function("evil", "f", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], opset)


def _first(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT and len(one.dims) >= 1)


def _external(model: onnx.ModelProto) -> None:
    tensor = _first(model)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def _weights(model: onnx.ModelProto, value: float) -> None:
    tensor = _first(model)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[0] = value
    tensor.raw_data = values.tobytes()


def _fewer(model: onnx.ModelProto) -> None:
    tensor = _first(model)
    tensor.raw_data = tensor.raw_data[:-4]


def _texts(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("texts", TensorProto.STRING, [1], [b"evil"]))


def _bomb(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**30, 2**30]), "huge"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))


def _computed_bomb(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20]), "side"))
    model.graph.node.append(helper.make_node("Mul", ["side", "side"], ["huge"]))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))


def _asked_bomb(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Cast", ["returns"], ["huge"], to=TensorProto.INT64))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["bomb"]))


def _late(model: onnx.ModelProto) -> onnx.NodeProto:  # noqa: ARG001 - the form of the others
    return helper.make_node("Identity", ["not made yet"], ["late"])


def _integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
