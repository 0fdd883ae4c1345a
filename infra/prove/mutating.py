"""
Small changes to a module's source, one at a time: what a test of it should notice.

Changed are comparisons (their boundary and their negation), conditions, `and`, `or` and `not`, arithmetic, constants,
members of enumerations, returned values, built-in functions that have an opposite, elements of tables, guards and
statements that are left out. Left alone are docstrings, annotations, imports, decorators, `__all__`, f-strings, texts
with a space in them and the words given to a refusal or an error: what is told to people decides nothing.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache

_BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_NEGATION: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_OPPOSITE = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "popleft": "pop",
    "add": "discard",
    "discard": "add",
    "intersection": "difference",
    "partition": "rpartition",
    "is_finite": "is_nan",
}
# Of these the first argument alone is left.
_DROPPED = frozenset({"abs", "sorted"})
_GONE = "left out"
# Each field that is set, and each number that a refusal tells, is there for a reason.
_OF_WHICH_EACH_COUNTS = frozenset({"replace", "refuse"})
_TOLD_TO_PEOPLE = frozenset({"refuse"})
_SKIPPED = {"annotation", "returns", "decorator_list", "type_params", "pattern"}

Place = tuple[tuple[str, int | None], ...]
Change = tuple[ast.AST, ast.AST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """
    One change: in which function, from what to what, and the lines of the statement that it lies in.

    `number` tells apart changes of one function that read the same. `at_import` is one that works when the module is
    imported: a table, a default, a constant.
    """

    function: str
    was: str
    becomes: str
    number: int
    first_line: int
    last_line: int
    at_import: bool
    place: Place
    replacement: ast.AST

    @property
    def key(self) -> str:
        """Say which change of the module it is, whatever line it stands on."""
        return f"{self.function or 'module'}: {self.was} -> {self.becomes} [{self.number}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """A node on the way down: where it is, in what, and what is known of those above it."""

    node: ast.AST
    place: Place
    function: str
    lines: tuple[int, int]
    at_import: bool
    is_told: bool


@cache
def mutants_of(source: str) -> tuple[Mutant, ...]:
    """Return every mutant of a module's source, each different from the source and from all others, in their order."""
    tree = ast.parse(source)
    enums = _members(tree)
    # A change lies within one statement of the module: that it differs is seen there.
    seen = {(index, ast.dump(one)) for index, one in enumerate(tree.body)}
    counts: Counter[tuple[str, str, str]] = Counter()
    found: list[Mutant] = []
    for site in _sites(_Site(node=tree, place=(), function="", lines=(1, 1), at_import=True, is_told=False)):
        for part, replacement in _changes(site, enums):
            place = site.place if part is site.node else (*site.place, *_step(site.node, part))
            index = place[0][1] or 0
            text = (index, ast.dump(_replaced(tree, place, replacement).body[index]))
            if text in seen:
                continue
            seen.add(text)
            was, becomes = _told(part, replacement)
            name = (site.function, was, becomes)
            # A statement is found from the function that holds it.
            is_inner = isinstance(site.node, ast.FunctionDef)
            first, last = _header(part) if is_inner else site.lines
            found.append(
                Mutant(
                    function=site.function, was=was, becomes=becomes, number=counts[name], first_line=first,
                    last_line=last, at_import=site.at_import and not is_inner, place=place, replacement=replacement,
                )
            )  # fmt: skip
            counts[name] += 1
    return tuple(found)


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the module's tree with one change in it, its lines where they were."""
    changed = _replaced(ast.parse(source), mutant.place, mutant.replacement)
    ast.fix_missing_locations(changed)
    return changed


def _sites(site: _Site) -> Iterator[_Site]:
    yield site
    for name, value in ast.iter_fields(site.node):
        if name in _SKIPPED or (name == "value" and isinstance(site.node, ast.Expr) and _is_text(value)):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or _is_left_alone(child, is_top=isinstance(site.node, ast.Module)):
                continue
            yield from _sites(_below(site, name, index, child))


def _below(site: _Site, name: str, index: int | None, child: ast.AST) -> _Site:
    function, at_import = site.function, site.at_import
    if isinstance(child, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{child.name}" if function else child.name
    if isinstance(site.node, ast.FunctionDef):
        at_import = at_import and name != "body"
    lines = site.lines
    if isinstance(child, ast.stmt | ast.match_case | ast.excepthandler):
        lines = _header(child)
    told = site.is_told or isinstance(child, ast.Raise | ast.JoinedStr) or _is_call_of(child, _TOLD_TO_PEOPLE)
    return _Site(
        node=child, place=(*site.place, (name, index)), function=function, lines=lines, at_import=at_import,
        is_told=told,
    )  # fmt: skip


def _header(node: ast.AST) -> tuple[int, int]:
    """Return the lines of a statement, of one that holds others only those before them."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, (node.guard or node.pattern).end_lineno or node.pattern.lineno
    first = int(getattr(node, "lineno", 1))
    body = getattr(node, "body", None) or getattr(node, "cases", None)
    if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
        return first, max(first, body[0].lineno - 1)
    return first, first if body else int(getattr(node, "end_lineno", first) or first)


def _is_left_alone(node: ast.AST, *, is_top: bool) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
        return True
    if is_top and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        # A name for a type is an annotation too.
        is_type = isinstance(node.value, ast.Subscript) or (
            isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr) and _is_none(node.value.right)
        )
        return node.targets[0].id == "__all__" or is_type
    return False


def _changes(site: _Site, enums: dict[str, list[str]]) -> Iterator[Change]:  # noqa: C901 - a table of kinds
    """Return what may become of a node, or of a part of it, as pairs of the part and what takes its place."""
    node = site.node
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp():
            yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
            for one in node.values:
                rest = [other for other in node.values if other is not one]
                yield node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, node.operand
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _ARITHMETIC:
            changed = copy.copy(node)
            changed.op = _ARITHMETIC[type(node.op)]()
            yield node, changed
        case ast.Constant():
            yield from ((node, ast.Constant(value)) for value in _values(node.value, site))
        case ast.Call():
            yield from _calls(node)
        case ast.Attribute(value=ast.Name(id=name), attr=attr) if attr in enums.get(name, []):
            members = enums[name]
            other = members[(members.index(attr) + 1) % len(members)]
            if other != attr:
                yield node, ast.Attribute(node.value, other, node.ctx)
        case ast.Set() | ast.Tuple() | ast.Dict():
            yield from _displays(node)
        case _:
            yield from _conditions(node)
            yield from _statements(node)


def _comparisons(node: ast.Compare) -> Iterator[Change]:
    for index, op in enumerate(node.ops):
        for table in (_BOUNDARY, _NEGATION):
            if type(op) in table:
                yield (
                    node,
                    ast.Compare(
                        node.left, [*node.ops[:index], table[type(op)](), *node.ops[index + 1 :]], node.comparators
                    ),
                )


def _values(value: object, site: _Site) -> Iterator[str | bool | int | float]:
    """Return the neighbours of a constant; of a text in which there is a number, those of the number."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
        yield value - 1
    elif isinstance(value, str) and not site.is_told and not any(letter.isspace() for letter in value):
        if _is_decimal(value, site):
            last = Decimal(1).scaleb(int(Decimal(value).as_tuple().exponent))
            yield str(Decimal(value) + last)
            yield str(Decimal(value) - last)
        else:
            yield f"{value}*"


def _is_decimal(value: str, site: _Site) -> bool:
    try:
        return Decimal(value).is_finite() and site.place[-1][0] == "args"
    except InvalidOperation:
        return False


def _calls(node: ast.Call) -> Iterator[Change]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _OPPOSITE:
        func = copy.copy(node.func)
        if isinstance(func, ast.Attribute):
            func.attr = _OPPOSITE[name]
        elif isinstance(func, ast.Name):
            func.id = _OPPOSITE[name]
        yield node, ast.Call(func, node.args, node.keywords)
    if name in _DROPPED and isinstance(node.func, ast.Name):
        yield node, node.args[0]
    if name in _OF_WHICH_EACH_COUNTS:
        for one in node.keywords:
            yield node, ast.Call(node.func, node.args, [other for other in node.keywords if other is not one])
    if name == "get" and len(node.args) > 1:
        yield node, ast.Call(node.func, node.args[:1], [])


def _displays(node: ast.Set | ast.Tuple | ast.Dict) -> Iterator[Change]:
    """Return tables with one element less; a tuple of unlike things is no table, and has its places."""
    if isinstance(node, ast.Dict):
        for index, key in enumerate(node.keys):
            if key is not None:
                pairs = [pair for row, pair in enumerate(zip(node.keys, node.values, strict=True)) if row != index]
                yield node, ast.Dict([one for one, _ in pairs], [one for _, one in pairs])
        return
    is_table = isinstance(node, ast.Set) or (
        isinstance(node.ctx, ast.Load)
        and (
            all(isinstance(one, ast.Tuple) for one in node.elts)
            or all(isinstance(one, ast.Attribute | ast.Name) and _tail(one).isupper() for one in node.elts)
        )
    )
    if not is_table or len(node.elts) < 2:
        return
    for one in node.elts:
        rest = [other for other in node.elts if other is not one]
        yield node, ast.Set(rest) if isinstance(node, ast.Set) else ast.Tuple(rest, node.ctx)


def _conditions(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.IfExp():
            yield node, node.body
            yield node, node.orelse
        case ast.comprehension():
            yield from ((one, ast.Constant(value=True)) for one in node.ifs)
        case ast.Match():
            for case in node.cases:
                if not (isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None):
                    yield node, ast.Match(node.subject, [other for other in node.cases if other is not case])
        case ast.match_case(guard=ast.expr() as guard):
            yield guard, ast.Constant(value=True)
        case ast.If() | ast.While():
            yield node.test, ast.Constant(value=False)
            if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield node.test, ast.UnaryOp(ast.Not(), node.test)
        case _:
            pass


def _statements(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield node, ast.Return(ast.Constant(value=None))
        case ast.Raise() | ast.Delete() | ast.AugAssign() | ast.Expr(value=ast.Call()):
            yield node, ast.Pass()
        case ast.FunctionDef():
            yield from ((one, ast.Pass()) for one in _rebindings(node))
        case ast.Continue() | ast.Break():
            yield node, ast.Break() if isinstance(node, ast.Continue) else ast.Continue()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, ast.Pass()
        case _:
            pass


def _rebindings(function: ast.FunctionDef) -> Iterator[ast.Assign]:
    """Return the assignments of a function to names that had a value before: without them, it still runs."""
    arguments = function.args
    bound = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        names = {one.id for one in node.targets if isinstance(one, ast.Name)}
        if names and names <= bound:
            yield node
        bound |= names


def _members(tree: ast.Module) -> dict[str, list[str]]:
    """Return the members of each enumeration that a module speaks of, sorted."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if attr.isupper() and name[:1].isupper():
                found.setdefault(name, set()).add(attr)
            case _:
                pass
    return {name: sorted(members) for name, members in found.items()}


def _step(node: ast.AST, part: ast.AST) -> Place:
    """Return the way from a node down to one of its parts."""
    for name, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if child is part:
                return ((name, index),)
            if isinstance(child, ast.AST) and (rest := _step(child, part)):
                return ((name, index), *rest)
    return ()


def _replaced(tree: ast.Module, place: Place, replacement: ast.AST) -> ast.Module:
    """Return the tree with another node at a place; what is not on the way there is shared."""
    if not place:
        raise ValueError("A module is not replaced as a whole")
    root = copy.copy(tree)
    above: ast.AST = root
    for depth, (name, index) in enumerate(place):
        held = getattr(above, name)
        child = held if index is None else held[index]
        fresh = copy.copy(child)
        if depth == len(place) - 1:
            fresh = copy.deepcopy(replacement)
            for node in ast.walk(fresh):
                if isinstance(node, ast.expr | ast.stmt) and not hasattr(node, "lineno"):
                    ast.copy_location(node, child)
        if index is None:
            setattr(above, name, fresh)
        else:
            setattr(above, name, [*held[:index], fresh, *held[index + 1 :]])
        above = fresh
    return root


def _told(was: ast.AST, becomes: ast.AST) -> tuple[str, str]:
    """Return both sides on one line each, of what only lacks a part the part."""
    match was, becomes:
        case ast.Match(cases=many), ast.Match(cases=fewer):
            pattern = next(one.pattern for one in many if one not in fewer)
            return f"case {ast.unparse(pattern)}", _GONE
        case ast.Call(keywords=many), ast.Call(keywords=fewer) if len(fewer) < len(many):
            return f"{ast.unparse(was.func)}: {_on_a_line(next(one for one in many if one not in fewer))}", _GONE
        case (ast.Set(elts=many), ast.Set(elts=fewer)) | (ast.Tuple(elts=many), ast.Tuple(elts=fewer)):
            return f"element {_on_a_line(next(one for one in many if one not in fewer))}", _GONE
        case ast.Dict(keys=many), ast.Dict(keys=fewer) if len(fewer) < len(many):
            return f"key {_on_a_line(next(one for one in many if one not in fewer))}", _GONE
        case _:
            return _on_a_line(was), _on_a_line(becomes)


def _on_a_line(node: ast.AST | None) -> str:
    return " ".join(ast.unparse(node).split()) if node is not None else ""


def _tail(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def _is_call_of(node: ast.AST, names: frozenset[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
