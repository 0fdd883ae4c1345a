"""Features of one's own: the same bits however candles come, and the check finds each way of not being so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.extensions.checking import Check, check_extensions
from feature_store.extensions.definition import feature
from feature_store.extensions.engine import ExtensionEngine, ExtensionError
from feature_store.extensions.loading import load_extensions
from infra.prove.markets import gapped
from tests.extension_support import FAULTS, HEAD, SOUND, UNUSABLE, loaded, written
from tests.feature_support import market, same, without

_FAULT_OF = {
    "remembers": Check.REPEATS, "random": Check.REPEATS, "crosses rows": Check.LIVE, "oracle disagrees": Check.ORACLE,
    "oracle of another shape": Check.ORACLE, "oracle raises": Check.ORACLE, "never a number": Check.DEFINED,
    "a price": Check.UNITLESS, "a turnover": Check.UNITLESS, "cut off": Check.WITHIN, "constant": Check.VARIES,
    "raises": Check.RUNS, "gives two numbers": Check.RUNS, "writes": Check.RUNS, "gives words": Check.RUNS,
}  # fmt: skip

Z_SCORE = (
    "@feature(lookback=20, formula='z', source='s')\ndef z_score(w):\n"
    "    return (w.close[-1] - w.close.mean()) / (w.close.std() + 1e-12)\n"
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    chunks=st.lists(st.integers(1, 150), min_size=1, max_size=12),
    restarts=st.integers(0, 255),
)
def test_chunks_and_restarts_change_no_bit(tmp_path, seed, chunks, restarts):
    """Any chunks, a restart after any of them, from what is remembered or from all candles: the same values."""
    extensions = loaded(tmp_path)
    block = gapped(market(600, seed=seed), seed) if seed % 2 else market(600, seed=seed)
    whole = ExtensionEngine(extensions, Timeframe.M5).advance(block)
    engine, parts, place = ExtensionEngine(extensions, Timeframe.M5), [], 0
    for number, size in enumerate([*chunks, len(block)]):
        parts.append(engine.advance(block[max(place - 3, 0) : place + size]))
        place = min(place + size, len(block))
        if restarts >> (number % 8) & 1:
            fresh = ExtensionEngine(extensions, Timeframe.M5)
            fresh.resume(engine.tail if number % 3 else block[:place])
            engine = fresh

    assert same(np.concatenate(parts), whole)
    assert len(engine.tail) <= extensions.memory


def test_warm_up_and_long_gaps_leave_values_undefined(tmp_path):
    """Before its warm-up a feature has no value, and after more than 64 missing candles it begins anew."""
    extensions = loaded(tmp_path)
    short, long = without(market(500, seed=3), slice(200, 264)), without(market(500, seed=3), slice(200, 265))
    bridged = ExtensionEngine(extensions, Timeframe.M5).advance(short)
    afresh = ExtensionEngine(extensions, Timeframe.M5).advance(long)

    assert np.isnan(bridged).sum(axis=0).tolist() == [19, 30, 99, 0]
    assert np.isnan(afresh[:200]).sum(axis=0).tolist() == [19, 30, 99, 0]
    assert np.isnan(afresh[200:]).sum(axis=0).tolist() == [19, 30, 99, 0]


def test_sound_features_hold_every_check(tmp_path):
    """A pure function over its window passes on whole and gapped candles of two timeframes, oracle included."""
    samples = [
        (Timeframe.M5, market(500, seed=1)),
        (Timeframe.M5, gapped(market(900, seed=2), 2)),
        (Timeframe.H1, market(400, seed=3, timeframe=Timeframe.H1)),
    ]
    findings = check_extensions(loaded(tmp_path), samples)

    assert all(one.passed for one in findings), [one for one in findings if not one.passed]
    assert {one.check for one in findings if one.feature == "sma_100"} == set(Check)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_check_finds(tmp_path, fault):
    """A feature that remembers, guesses, mixes rows, raises, or differs from its oracle does not pass."""
    findings = check_extensions(loaded(tmp_path, FAULTS[fault]), [(Timeframe.M5, market(300, seed=1))])

    assert _FAULT_OF[fault] in {one.check for one in findings if not one.passed}


@pytest.mark.parametrize("fault", ["a price", "a turnover", "constant"])
def test_what_models_cannot_use_fails_that_check_alone(tmp_path, fault):
    """A price, a turnover and a constant run alike in batch and live: what fails is what makes them useless."""
    findings = check_extensions(loaded(tmp_path, FAULTS[fault]), [(Timeframe.M5, market(300, seed=1))])

    assert [one.check for one in findings if not one.passed] == [_FAULT_OF[fault]]


def test_a_unit_on_purpose_is_declared(tmp_path):
    """The logarithm of a turnover has a unit; declared, it passes, and the finding names the unit."""
    text = FAULTS["a turnover"].replace("source='s'", "source='s', unit='log of base'")
    findings = check_extensions(loaded(tmp_path, text), [(Timeframe.M5, market(300, seed=1))])

    assert all(one.passed for one in findings)
    assert [one.detail for one in findings if one.check is Check.UNITLESS] == ["it has one, as declared: log of base"]


def test_a_failing_feature_leaves_the_verdicts_of_the_others(tmp_path):
    """Beside one that raises, a healthy one is checked as ever, and so is one with a unit."""
    text = FAULTS["raises"] + "".join(
        FAULTS[one].removeprefix(HEAD).replace("def bad", f"def {name}")
        for one, name in (("a price", "price"), ("constant", "same"))
    )
    findings = check_extensions(loaded(tmp_path, text + Z_SCORE), [(Timeframe.M5, market(300, seed=1))])
    failed = {one.feature: one.check for one in findings if not one.passed}

    assert failed == {"bad": Check.RUNS, "price": Check.UNITLESS, "same": Check.VARIES}
    healthy = {one.check for one in findings if one.feature == "z_score"}
    assert healthy == set(Check) - {Check.ORACLE}


def test_features_that_fail_only_together_do_not_pass(tmp_path):
    """One that counts its calls into what another reads fails beside it: that is told, whatever each does alone."""
    text = (
        HEAD + "calls = []\n@feature(lookback=2, formula='f', source='s')\ndef first(w):\n"
        "    calls.append('first')\n    return w.close[-1] / w.close[0]\n"
        "@feature(lookback=2, formula='f', source='s')\ndef second(w):\n"
        "    if calls and calls.pop() == 'first':\n        raise ValueError('not alone')\n"
        "    return w.close[0] / w.close[-1]\n"
    )
    findings = check_extensions(loaded(tmp_path, text), [(Timeframe.M5, market(300, seed=1))])

    assert "not alone" in next(one.detail for one in findings if not one.passed and one.check is Check.RUNS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lookback": "20"}, {"lookback": 2.0}, {"lookback": True}, {"lookback": None}, {"lookback": np.int64(20)},
        {"warm_up": "30"}, {"warm_up": 30.5}, {"tolerance": "1e-9"}, {"tolerance": None}, {"formula": 5},
        {"source": None}, {"tells": 1}, {"parameters": None}, {"family": ["mine"]}, {"nan_policy": b"none"},
        {"vectorised": 1}, {"oracle": "TA-Lib"}, {"unit": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_declaration_of_the_wrong_type_is_named(wrong):
    """Each argument of another type is refused by its name, with what was found."""
    ((name, value),) = wrong.items()
    stated = {"lookback": 20, "formula": "f", "source": "s", **wrong}

    with pytest.raises(BadInputError, match=rf"Feature mine: {name} must be .*, was .*\({type(value).__name__}\)"):
        feature(**stated)(mine)


def mine(w):
    """A function to declare."""
    return 1.0


def test_what_is_no_function_is_no_feature():
    """A number under the decorator is refused."""
    with pytest.raises(BadInputError, match=r"takes a function, found 5 \(int\)"):
        feature(lookback=2, formula="f", source="s")(5)


@pytest.mark.parametrize("what", list(UNUSABLE))
def test_what_cannot_be_a_set_is_refused(tmp_path, what):
    """A file that cannot run, or declares what cannot be, is refused with its name in the message."""
    with pytest.raises(BadInputError, match="my_features"):
        loaded(tmp_path, UNUSABLE[what])


def test_folders_are_read_by_name_and_private_files_are_not(tmp_path):
    """All files of a folder make one set, in the order of their names; those that begin with _ are no part of it."""
    one = HEAD + "@feature(lookback=2, formula='f', source='s')\ndef {}(w):\n    return 1.0\n"
    written(tmp_path, one.format("second"), "b.py")
    written(tmp_path, one.format("first"), "a.py")
    written(tmp_path, "raise RuntimeError\n", "_draft.py")

    assert load_extensions(tmp_path).names == ("first", "second")
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.parametrize("name", ["missing.py", "empty-folder", "notes.txt"])
def test_paths_that_hold_no_features_are_refused(tmp_path, name):
    """A path that is not there, holds nothing, or is no Python file is refused with what to do."""
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "notes.txt").write_text("no")

    with pytest.raises(BadInputError, match="QT_EXTENSIONS"):
        load_extensions(tmp_path / name)


def test_any_change_of_the_source_is_another_fingerprint(tmp_path):
    """The same file has the same fingerprint wherever it lies; one changed number has another."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    first = loaded(here).fingerprint()

    assert loaded(there).fingerprint() == first
    assert loaded(there, SOUND.replace("np.linspace(0, 1, 20)", "np.linspace(0, 2, 20)")).fingerprint() != first
    assert loaded(there, SOUND.replace("lookback=100", "lookback=101")).fingerprint() != first


def test_what_is_loaded_is_what_the_digest_says(tmp_path):
    """A file that was changed is loaded as it is now: nothing compiled is left over from before."""
    text = HEAD + "@feature(lookback=1, formula='f', source='s')\ndef mine(w):\n    return {}\n"
    block = market(3, seed=1)
    values = [
        ExtensionEngine(loaded(tmp_path, text.format(number)), Timeframe.M5).advance(block)[-1, 0]
        for number in (1.0, 2.0)
    ]

    assert values == [1.0, 2.0]


def test_a_failing_feature_changes_no_state(tmp_path):
    """A function that raises names itself and its candle, and the engine is as it was before."""
    text = (
        HEAD + "@feature(lookback=1, formula='f', source='s')\ndef picky(w):\n"
        "    if w.close[-1] < 0.5:\n        raise ValueError('too cheap')\n    return w.close[-1]\n"
    )
    engine = ExtensionEngine(loaded(tmp_path, text), Timeframe.M5)
    block = market(10, seed=1)
    engine.advance(block[:5])
    cheap = type(block)(block.open_time_ms[5:6], block.values[5:6] * 0.001)

    with pytest.raises(ExtensionError, match=r"picky failed at the candle .* too cheap"):
        engine.advance(cheap)
    assert engine.tail.last_open_time_ms == int(block.open_time_ms[4])
    assert len(engine.advance(block[5:])) == 5


def test_samples_that_are_too_short_are_refused(tmp_path):
    """Nothing can be said of a window of a hundred candles from fifty."""
    with pytest.raises(BadInputError, match="looks back 99 candles"):
        check_extensions(loaded(tmp_path), [(Timeframe.M5, market(50, seed=1))])


@pytest.mark.parametrize("row", [0, 4])
def test_impossible_candles_are_refused(tmp_path, row):
    """What no market could have made reaches no function, and the state stays."""
    engine = ExtensionEngine(loaded(tmp_path), Timeframe.M5)
    block = market(10, seed=1)
    values = block.values.copy()
    values[row, 1] = -1.0

    with pytest.raises(BadInputError, match="Unusable candle"):
        engine.advance(type(block)(block.open_time_ms, values))
    assert len(engine.tail) == 0
