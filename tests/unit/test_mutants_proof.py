"""The proof by mutants: what it changes, what it leaves alone, that it sees, and that its list cannot lie."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.prove import mutant_campaign, mutants
from infra.prove.mutant_campaign import all_mutants, campaign
from infra.prove.mutant_sources import ROOT, TARGETS, TESTS, closure, digest, module_name
from infra.prove.mutants import EQUIVALENT, Equivalent, drawn, equivalents, matched
from infra.prove.mutating import mutants_of, mutated

LITTLE = "inference/risk/refusal.py"


def changes(source):
    return {(one.was, one.becomes) for one in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {("a < b", "a <= b"), ("a < b", "a >= b")}),
        ("x = a == b", {("a == b", "a != b")}),
        ("x = a is None", {("a is None", "a is not None")}),
        ("x = a and b", {("a and b", "a or b"), ("a and b", "a"), ("a and b", "b")}),
        ("x = not a", {("not a", "a")}),
        ("x = a + b", {("a + b", "a - b")}),
        ("x = a * 2", {("a * 2", "a / 2"), ("2", "3"), ("2", "1")}),
        ("x = True", {("True", "False")}),
        ("x = 'word'", {("'word'", "'word*'")}),
        ("x = D('0.70')", {("'0.70'", "'0.71'"), ("'0.70'", "'0.69'")}),
        ("x = min(a, b)", {("min(a, b)", "max(a, b)")}),
        ("x = sorted(a)", {("sorted(a)", "a")}),
        ("x = a if b else c", {("a if b else c", "a"), ("a if b else c", "c")}),
        ("x = {a, b}", {("element a", "left out"), ("element b", "left out")}),
        ("x = {a: b}", {("key a", "left out")}),
        ("x = replace(a, b=c)", {("replace: b=c", "left out")}),
        ("x = Side.BUY, Side.SELL", {("Side.BUY", "Side.SELL"), ("Side.SELL", "Side.BUY"),
                                     ("element Side.BUY", "left out"), ("element Side.SELL", "left out")}),
        ("def f():\n    return a", {("return a", "return None")}),
        ("def f(a=1):\n    pass", {("1", "2"), ("1", "0")}),
        ("def f():\n    raise ValueError('a b')", {("raise ValueError('a b')", "pass")}),
        ("def f(a):\n    g(a)", {("g(a)", "pass")}),
        ("def f(a):\n    a = b", {("a = b", "pass")}),
        ("def f(a):\n    if a:\n        pass", {("a", "False"), ("a", "not a")}),
        ("def f(a):\n    match a:\n        case B():\n            pass\n        case _:\n            pass",
         {("case B()", "left out")}),
        ("for a in b:\n    break", {("break", "continue")}),
    ],
)  # fmt: skip
def test_each_small_change_is_made(source, expected):
    """Comparisons, conditions, arithmetic, constants, tables, statements, results: each in its ways and no other."""
    assert changes(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""A module."""\n\nfrom a import b\n\n__all__ = ["b"]\n',
        'def f(a: int | None) -> "str":\n    """Say something."""\n    pass\n',
        "Answer = tuple[str, int] | None",
        "x = f'{a + 1} of 2'",
        "x = 'what a person reads'",
        "x = refuse(found='none')",
    ],
)
def test_what_is_told_to_people_is_left_alone(source):
    """Docstrings, annotations, names of types, what is exported, and texts."""
    assert changes(source) <= {("refuse: found='none'", "left out")}


@pytest.mark.parametrize("target", TARGETS)
def test_every_mutant_is_another_module_that_compiles(target):
    """No two are the same, none is the source, and each is named by words that no other has."""
    source = (ROOT / target).read_text()
    many = mutants_of(source)
    texts = {ast.dump(mutated(source, one)) for one in many[:: max(1, len(many) // 12)]}

    assert len({one.key for one in many}) == len(many)
    assert ast.dump(ast.parse(source)) not in texts
    assert len(texts) == len(many[:: max(1, len(many) // 12)])
    for one in many[::7]:
        compile(mutated(source, one), target, "exec", dont_inherit=True)


@given(st.text(alphabet="abc +-<>=().:\n", max_size=40))
def test_whatever_is_no_python_is_refused_and_the_rest_is_changed(text):
    """A source that does not parse has no mutants but an error; one that does is never changed into itself."""
    try:
        parsed = ast.dump(ast.parse(text))
    except SyntaxError:
        with pytest.raises(SyntaxError):
            mutants_of(text)
        return

    assert all(ast.dump(mutated(text, one)) != parsed for one in mutants_of(text))


def test_what_is_changed_and_what_is_run_is_there():
    """Each target is one that some file of tests imports, however far away; each file of tests imports some target."""
    near = {one for file in TESTS for one in closure(file)}

    assert set(TARGETS) <= near
    assert all(closure(file) & set(TARGETS) for file in TESTS)
    assert "inference/risk/__init__.py" in closure("inference/risk/limits.py")
    assert module_name("inference/risk/__init__.py") == "inference.risk"
    assert len({digest(file) for file in TESTS}) == len(TESTS)


def test_mutants_are_noticed_kept_and_not_tried_again(tmp_path, monkeypatch):
    """One mutant within a function and one of a table, in forks, against a file of tests; the second time none is."""
    monkeypatch.setattr(mutant_campaign, "TESTS", ("tests/unit/test_exit_barriers.py",))
    every = all_mutants(["inference/exits/barriers.py", "inference/risk/errors.py"])
    within = next(name for name, one in every.items() if one.was == "return candle_close_ms >= time_barrier_ms("
                  "position.entry_time_ms, policy=policy, timeframe_ms=timeframe_ms)")  # fmt: skip
    table = next(name for name, one in every.items() if one.at_import and one.was == "20" and one.becomes == "21")
    some = {name: every[name] for name in (within, table)}

    first = campaign(some, tmp_path, lanes=1)
    kept = (tmp_path / "verdicts.jsonl").read_bytes()
    # What an interruption leaves of a line is passed over.
    (tmp_path / "verdicts.jsonl").write_bytes(kept + kept[:10])
    second = campaign(some, tmp_path, lanes=1)

    assert "test_exit_barriers" in first[within].answer.killer
    assert not first[table].is_killed
    assert second == first
    assert (tmp_path / "verdicts.jsonl").read_bytes() == kept + kept[:10]
    assert not list(Path(ROOT / "inference").rglob("*.part"))


def test_the_list_says_what_it_says_of_mutants_that_are():
    """Every entry is of a mutant there is, is there once, and has its reason."""
    listed = equivalents(EQUIVALENT)
    found, wrong = matched(listed, all_mutants(TARGETS))

    assert wrong == []
    assert len(found) == len(listed)


def test_an_entry_of_nothing_twice_or_without_a_reason_is_told():
    """The list cannot outlive what it is of."""
    every = all_mutants([LITTLE])
    ((target, _), one), *_ = every.items()
    entry = Equivalent(target=target, function=one.function, was=one.was, becomes=one.becomes, reason="why")
    gone = msgspec.structs.replace(entry, was="nothing")
    silent = msgspec.structs.replace(entry, reason=" ")

    assert matched([entry], every) == ({(target, 0)}, [])
    for some, word in (([gone], "no such mutant"), ([entry, entry], "twice"), ([silent], "without a reason")):
        (wrong,) = matched(some, every)[1]
        assert word in wrong


def test_a_list_with_an_unknown_word_is_refused(tmp_path):
    """A mistake in the file is an error, and no entry less."""
    path = tmp_path / "list.toml"
    path.write_text('[[equivalent]]\ntarget = "a"\nfunction = "b"\nwas = "c"\nbecomes = "d"\nwhy = "e"\n')

    with pytest.raises(msgspec.ValidationError):
        equivalents(path)


def test_a_drawn_part_is_the_same_each_time():
    """In CI the same mutants are tried again and again; a part larger than all is all."""
    every = all_mutants([LITTLE, "inference/risk/bias.py"])

    assert drawn(every, 5) == drawn(every, 5)
    assert len(drawn(every, 5)) == 5
    assert drawn(every, 10**6) == every


def test_the_verdict_counts_what_it_says(monkeypatch):
    """Equivalent and stillborn mutants do not count; one that is listed and noticed is an error."""
    every = all_mutants(TARGETS)
    listed, _ = matched(equivalents(EQUIVALENT), every)

    def told(noticed):
        def tried(some, _folder, *, lanes):
            assert lanes >= 1
            return {
                name: mutant_campaign.Verdict(
                    target=name[0], mutant=one.key, evidence="", answer=mutant_campaign.Answer(
                        killer="tests/a.py::test_b" if noticed(name) else ""
                    ),
                )
                for name, one in some.items()
            }  # fmt: skip

        monkeypatch.setattr(mutants, "campaign", tried)
        return mutants.prove(mutants.Size.FULL)

    honest, wrong, blind = told(lambda name: name not in listed), told(lambda _: True), told(lambda _: False)

    assert honest.holds
    assert "(100.0%)" in honest.figure
    assert wrong.holds is (not listed)
    assert not blind.holds
