"""
An ONNX graph: arithmetic on tensors that it carries with it, and nothing else.

Sources: onnx.proto3 of the ONNX project for the fields, the operator list of ai.onnx and ai.onnx.ml for what may run.
No control flow, no functions, no custom operators, no data in other files, no randomness, no strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.models.inspection.protobuf import Message, Schema, read
from inference.models.inspection.refusal import Fault, require

_MODEL = Schema("ModelProto", frozenset({1, 2, 3, 4, 5, 6, 7}), frozenset({8, 14}))
_OPSET = Schema("OperatorSetIdProto", frozenset({1, 2}))
_GRAPH = Schema("GraphProto", frozenset({2, 10}), frozenset({1, 5, 11, 12, 13, 16}))
_NODE = Schema("NodeProto", frozenset({3, 4, 6, 7, 8}), frozenset({1, 2, 5, 9}))
_TENSOR = Schema("TensorProto", frozenset({2, 8, 9, 12, 14}), frozenset({1, 4, 5, 6, 7, 10, 11, 13, 16}))
_ATTRIBUTE = Schema("AttributeProto", frozenset({1, 2, 3, 4, 5, 6, 13, 20, 21}), frozenset({7, 8, 9, 10, 11}))
_VALUE = Schema("ValueInfoProto", frozenset({1, 2, 3}), frozenset({4}))
_TYPE = Schema("TypeProto", frozenset({1, 6}))
_TENSOR_TYPE = Schema("TypeProto.Tensor", frozenset({1, 2}))
_SHAPE = Schema("TensorShapeProto", frozenset(), frozenset({1}))
_DIMENSION = Schema("TensorShapeProto.Dimension", frozenset({1, 2, 3}))

_OPERATORS = frozenset({
    "Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "Cos", "CumSum", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual",
    "HardSigmoid", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
    "LogSoftmax", "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pad", "Pow", "Range",
    "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Round", "Selu", "Shape",
    "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile",
    "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_ML_OPERATORS = frozenset({
    "ArrayFeatureExtractor", "Imputer", "LinearClassifier", "LinearRegressor", "Normalizer", "Scaler", "TreeEnsemble",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor",
})  # fmt: skip
# What decides how large a result becomes, by operator: these inputs must be constants, or taken from shapes alone.
_SIZES = {"ConstantOfShape": (0,), "Expand": (1,), "Pad": (1,), "Range": (0, 1, 2), "Reshape": (1,), "Tile": (1,)}
_ON_SHAPES = frozenset({
    "Cast", "Concat", "Constant", "Gather", "Identity", "Shape", "Slice", "Squeeze", "Unsqueeze",
})  # fmt: skip
_MAX_NODES = 20_000
_MAX_ELEMENTS = 2**24
# FLOAT, INT, STRING, FLOATS, INTS, STRINGS and a single TENSOR; no graph, no sparse tensor, no type.
_ATTRIBUTE_KINDS = frozenset({1, 2, 3, 4, 6, 7, 8})
_DTYPES: Mapping[int, str] = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 11: "<f8"}


@dataclass(frozen=True, slots=True)
class _Node:
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def inspect_onnx(content: bytes, what: str) -> None:
    """
    Refuse a graph that could do anything but arithmetic on its inputs and on the finite tensors inside the file.

    Raises:
        InspectionError: The encoding is damaged, or an operator, attribute, tensor or link is not of that kind.
    """
    model = read(memoryview(content), _MODEL, what)
    require(3 <= model.number(1) <= 13, Fault.STRUCTURE, f"{what} has IR version {model.number(1)}")
    for one in model.messages(8):
        opset = read(one, _OPSET, what)
        require(
            opset.text(1) in ("", "ai.onnx", "ai.onnx.ml"),
            Fault.FORBIDDEN_OPERATOR,
            f"{what} asks for the operators of {opset.text(1)!r}",
        )
    graphs = model.messages(7)
    require(len(graphs) == 1, Fault.STRUCTURE, f"{what} has no graph")
    _check_graph(read(graphs[0], _GRAPH, what), what)


def _check_graph(graph: Message, what: str) -> None:
    constants = dict(_tensor(one, what) for one in graph.messages(5))
    inputs = tuple(_check_input(one, what) for one in graph.messages(11))
    require(1 <= len(inputs) <= 4, Fault.STRUCTURE, f"{what} has {len(inputs)} inputs, 1 to 4 were expected")
    known = {*inputs, *constants}
    require(
        len(known) == len(inputs) + len(graph.messages(5)) and "" not in known,
        Fault.DUPLICATE_KEY,
        f"{what} names a tensor twice",
    )
    parts = graph.messages(1)
    require(1 <= len(parts) <= _MAX_NODES, Fault.OVERSIZE, f"{what} has {len(parts)} nodes")
    made: dict[str, _Node] = {}
    for part in parts:
        node = _node(part, constants, what)
        missing = [name for name in node.inputs if name and name not in known]
        require(
            not missing, Fault.STRUCTURE, f"{what}: {node.operator} reads {missing[:1]} before anything has made it"
        )
        for name in filter(None, node.outputs):
            require(name not in known, Fault.DUPLICATE_KEY, f"{what} makes {name!r:.60} twice")
            known.add(name)
            made[name] = node
        for place in _SIZES.get(node.operator, ()):
            if place < len(node.inputs) and node.inputs[place]:
                _check_size(node.inputs[place], made, constants, inputs, f"{what}: {node.operator}")
    outputs = [read(one, _VALUE, what).text(1) for one in graph.messages(12)]
    require(
        1 <= len(outputs) <= 8 and all(name in known for name in outputs),
        Fault.STRUCTURE,
        f"{what} answers with {outputs[:3]}, which nothing makes",
    )


def _check_input(content: memoryview, what: str) -> str:
    """Return an input's name; it must be a float tensor of two or three axes, only the first of which may vary."""
    value = read(content, _VALUE, what)
    name = value.text(1)
    kinds = value.messages(2)
    kind = read(kinds[0], _TYPE, what) if kinds else None
    tensors = kind.messages(1) if kind is not None else ()
    require(len(tensors) == 1, Fault.STRUCTURE, f"{what}: input {name!r:.60} is no tensor")
    tensor = read(tensors[0], _TENSOR_TYPE, what)
    require(tensor.number(1) == 1, Fault.STRUCTURE, f"{what}: input {name!r:.60} is not of float32")
    shapes = tensor.messages(2)
    axes = [read(one, _DIMENSION, what) for one in read(shapes[0], _SHAPE, what).messages(1)] if shapes else []
    require(
        2 <= len(axes) <= 3 and all(1 <= axis.number(1) <= 4096 for axis in axes[1:]),
        Fault.STRUCTURE,
        f"{what}: input {name!r:.60} has no shape of two or three bounded axes",
    )
    return name


def _node(content: memoryview, constants: dict[str, npt.NDArray[np.generic]], what: str) -> _Node:
    node = read(content, _NODE, what)
    operator, domain = node.text(4), node.text(7)
    allowed = {"": _OPERATORS, "ai.onnx": _OPERATORS, "ai.onnx.ml": _ML_OPERATORS}.get(domain, frozenset())
    require(
        operator in allowed and not node.text(8),
        Fault.FORBIDDEN_OPERATOR,
        f"{what} has the operator {domain}:{operator:.60}, which no member needs",
    )
    found = _Node(operator, node.texts(1), node.texts(2))
    require(1 <= len(found.outputs) <= 64, Fault.STRUCTURE, f"{what}: {operator} makes nothing")
    for one in node.messages(5):
        value = _attribute(one, f"{what}: {operator}")
        if operator == "Constant" and value is not None:
            constants.setdefault(f"Constant {found.outputs[0]}", value)
    return found


def _attribute(content: memoryview, what: str) -> npt.NDArray[np.generic] | None:
    """Return the attribute's tensor, where it is one."""
    attribute = read(content, _ATTRIBUTE, what)
    name, kind = attribute.text(1), attribute.number(20)
    require(
        kind in _ATTRIBUTE_KINDS
        and not any(attribute.has(one) for one in (6, 10, 11, 21))
        and attribute.has(5) == (kind == 4),
        Fault.FORBIDDEN_OPERATOR,
        f"{what} has the attribute {name!r:.60} of kind {kind}: a graph, a reference or a type",
    )
    attribute.texts(9)
    attribute.text(4)
    floats = [*attribute.messages(2), *attribute.messages(7)]
    require(all(len(one) % 4 == 0 for one in floats), Fault.STRUCTURE, f"{what}: {name!r:.60} has broken numbers")
    require(
        all(bool(np.isfinite(np.frombuffer(one, "<f4")).all()) for one in floats),
        Fault.NOT_FINITE,
        f"{what}: {name!r:.60} has numbers that are none",
    )
    tensors = attribute.messages(5)
    if kind == 4:
        return _tensor(tensors[0], f"{what}: {name!r:.60}")[1]
    if kind == 7:
        return np.array(attribute.numbers(8) if attribute.has(8) else (), np.int64)
    return None


def _tensor(content: memoryview, what: str) -> tuple[str, npt.NDArray[np.generic]]:
    """Return a tensor's name and values; its bytes must be in it, as many as its shape says, and finite."""
    tensor = read(content, _TENSOR, what)
    name = tensor.text(8)
    require(
        not tensor.has(13) and tensor.number(14) == 0,
        Fault.EXTERNAL_DATA,
        f"{what}: tensor {name!r:.60} lies in another file",
    )
    form = _DTYPES.get(tensor.number(2))
    require(
        form is not None and not tensor.has(6), Fault.STRUCTURE, f"{what}: tensor {name!r:.60} is of no number type"
    )
    dtype, shape = np.dtype(form), tensor.numbers(1)
    require(
        len(shape) <= 8 and all(0 <= one <= _MAX_ELEMENTS for one in shape),
        Fault.OVERSIZE,
        f"{what}: tensor {name!r:.60} has the shape {shape[:8]}",
    )
    count = 1
    for one in shape:
        count *= one
    require(count <= _MAX_ELEMENTS, Fault.OVERSIZE, f"{what}: tensor {name!r:.60} has {count} numbers")
    values = _values(tensor, dtype)
    require(
        len(values) == count, Fault.STRUCTURE, f"{what}: tensor {name!r:.60} holds {len(values)} numbers for {count}"
    )
    require(
        dtype.kind != "f" or bool(np.isfinite(values).all()),
        Fault.NOT_FINITE,
        f"{what}: tensor {name!r:.60} holds numbers that are none",
    )
    return name, values


def _values(tensor: Message, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    """Return the values from the one field that holds them."""
    holding = [number for number in (4, 5, 7, 9, 10) if tensor.has(number)]
    require(len(holding) <= 1, Fault.DUPLICATE_KEY, f"{tensor.what} has a tensor whose values stand in two places")
    if not holding:
        return np.empty(0, dtype)
    if holding == [9]:
        raw = tensor.messages(9)[0]
        require(len(raw) % dtype.itemsize == 0, Fault.STRUCTURE, f"{tensor.what} has a tensor of broken numbers")
        return np.frombuffer(raw, dtype)
    expected = {4: "<f4", 10: "<f8", 7: "<i8"}.get(holding[0], dtype.str)
    require(
        np.dtype(expected) == dtype and (holding != [5] or dtype.itemsize <= 4),
        Fault.STRUCTURE,
        f"{tensor.what} has a tensor whose values are of another type",
    )
    if holding[0] in (4, 10):
        parts = tensor.messages(holding[0])
        require(
            all(len(one) % dtype.itemsize == 0 for one in parts), Fault.STRUCTURE, f"{tensor.what} has broken numbers"
        )
        return np.concatenate([np.frombuffer(one, dtype) for one in parts]) if parts else np.empty(0, dtype)
    return np.array(tensor.numbers(holding[0]), np.int64).astype(dtype)


def _check_size(
    name: str,
    made: Mapping[str, _Node],
    constants: Mapping[str, npt.NDArray[np.generic]],
    inputs: tuple[str, ...],
    what: str,
) -> None:
    """Refuse a size that is computed, or that multiplies to more than 2^24: memory is no place for arithmetic."""
    product, waiting, seen = 1, [name], set[str]()
    while waiting:
        one = waiting.pop()
        if one in seen or not one:
            continue
        seen.add(one)
        require(one not in inputs, Fault.FORBIDDEN_OPERATOR, f"{what} takes its size from what is asked of the model")
        node = made.get(one)
        values = constants.get(one) if node is None else constants.get(f"Constant {one}")
        if values is not None:
            for value in values.tolist():
                product *= max(abs(int(value)), 1)
                require(
                    product <= _MAX_ELEMENTS, Fault.OVERSIZE, f"{what} would make a tensor of more than 2^24 numbers"
                )
        elif node is not None:
            require(
                node.operator in _ON_SHAPES, Fault.FORBIDDEN_OPERATOR, f"{what} computes its size by {node.operator}"
            )
            # What a shape is taken of may be anything: it is there already.
            waiting += [] if node.operator == "Shape" else node.inputs[: 1 if node.operator != "Concat" else None]
