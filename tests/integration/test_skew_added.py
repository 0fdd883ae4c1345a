"""Inputs that people add are in the journal too, and held against the lake: every cause is brought about and named."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from feature_store.candle import CandleBlock
from feature_store.extensions.live import ViewedFeatures
from feature_store.extensions.settings import ViewSettings
from feature_store.features import native
from feature_store.features.digests import unpack_inputs
from feature_store.lake import CandleLake
from feature_store.partitions import locked, read_partition, write_partition
from feature_store.skew import Cause
from flows.settings import FlowSettings
from flows.skewing import SkewError, audit_skew, refuse_unexplained
from inference.domain.errors import JournalError
from inference.domain.events import FeaturesUsed
from inference.journal.codec import canonical, event_of
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from inference.signals.used_features import UsedFeatures
from tests.extension_support import PLAIN_NUMPY, written
from tests.integration.test_skew_causes import BTC, COUNT, ETH, START, STEP, Pipeline, _candles, stored

OF_BTC = {f"{name}@{BTC.symbol}{longer}" for name in ("rsi", "log_return_6") for longer in ("", "@15m")}
AT = COUNT + 4
"""The candle at which BTC is late, missed, corrected or poisoned; the 15 minutes that it ends are whole."""


@pytest.fixture(autouse=True)
def _view(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_EXTENSIONS", str(written(tmp_path, PLAIN_NUMPY)))
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", BTC.symbol)
    monkeypatch.setenv("QT_INCLUDE_TIMEFRAMES", "15m")
    monkeypatch.setenv("QT_INCLUDE_INPUTS", "rsi,log_return_6")


class Viewed(Pipeline):
    """The same part of a worker, with a view; BTC's candles of some places come with a later batch, or never."""

    def __init__(self, home, *, begin: int = 0, late: tuple[int, ...] = (), missed: tuple[int, ...] = ()) -> None:
        self.home, self.journal, self.at = home, home / "journal" / "journal.jsonl", COUNT
        self.live = ViewedFeatures((BTC.symbol, ETH.symbol), BTC.timeframe, ViewSettings.of().view())
        self.used = UsedFeatures(
            self.live.symbols, venue="sandbox", timeframe="5m", code=native.made_from()[:16], viewed=self.live
        )
        self.saw = {one: _candles(one) for one in (BTC, ETH)}
        self.late, self.missed, self._waiting = late, missed, []
        for one in (BTC, ETH):
            self._advance(one, self.saw[one][begin:COUNT])
        self.live.latest()

    def _advance(self, series, block) -> None:
        if series == BTC and len(block) == 1:
            if self.at in self.missed:
                return
            self._waiting.append(block)
            if self.at in self.late:
                return
            block, self._waiting = CandleBlock.empty().concat(*self._waiting), []
        super()._advance(series, block)


def _audit(home):
    return audit_skew(FlowSettings.of(home=home, venue="sandbox"), 24)


def _added(report, series=ETH) -> dict[Cause, set[str]]:
    """Return the added inputs of a series that differ, by cause."""
    found: dict[Cause, set[str]] = {}
    for one in report.differences:
        names = {name for name in one.features if "@" in name or name in ("z_score_20", "price")}
        if one.series == series and names:
            found.setdefault(one.cause, set()).update(names)
    return found


def test_a_clean_run_has_no_difference(tmp_path):
    """What models read beside the 49 is in the journal to the bit, and is what the lake gives."""
    stored(tmp_path)
    worker = Viewed(tmp_path)
    worker.decide(20)
    event = [event_of(one) for one in read_entries(worker.journal)][-1]
    values = unpack_inputs(event.added.values, 2, len(event.added.names))

    assert _audit(tmp_path).differences == ()
    assert event.added.names == ViewSettings.of().view().extra_names
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values, worker.live.latest().model_inputs[:, -len(event.added.names) :])


def test_without_added_inputs_the_journal_is_as_before(tmp_path):
    """A worker of the 49 alone writes no word more, and what it wrote before is read, and audited, as it was."""
    stored(tmp_path)
    Pipeline(tmp_path).decide(2)
    entry = next(iter(read_entries(tmp_path / "journal" / "journal.jsonl")))
    event = event_of(entry)

    assert set(entry.data) == {
        "candle_close_ms", "code", "digests", "facts", "fingerprint", "symbols", "timeframe", "venue"
    }  # fmt: skip
    assert isinstance(event, FeaturesUsed)
    assert canonical(event) == bytes(entry.text)
    assert _audit(tmp_path).differences == ()


def test_an_included_symbol_that_was_late(tmp_path):
    """Only the row that was decided without BTC's candle differs, in what it reads of BTC, and is named so."""
    stored(tmp_path)
    Viewed(tmp_path, late=(AT,)).decide(10)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.LATE}
    assert _added(report)[Cause.LATE] <= OF_BTC
    assert {f"rsi@{BTC.symbol}", f"log_return_6@{BTC.symbol}"} <= _added(report)[Cause.LATE]
    assert {(one.series, one.open_time_ms) for one in report.differences} == {(ETH, START + AT * STEP)}
    assert f"{BTC.symbol} was there up to" in report.differences[0].detail
    refuse_unexplained(report)


def test_what_the_lake_knows_to_be_late_is_no_difference(tmp_path):
    """Where the lake had BTC's candle as late as the worker had it, training reads what the worker read."""
    lake = CandleLake(tmp_path / "lake")
    for one in (BTC, ETH):
        block = _candles(one)
        came = block.open_time_ms + STEP + 400
        if one == BTC:
            came[AT] += STEP // 2
        lake.append(one, block, available_at_ms=came)
    Viewed(tmp_path, late=(AT,)).decide(10)

    assert _audit(tmp_path).differences == ()


def test_the_lake_was_later_than_the_worker(tmp_path):
    """Where only the lake had BTC's candle late, that is the cause too, and the words say which of both it was."""
    lake = CandleLake(tmp_path / "lake")
    for one in (BTC, ETH):
        block = _candles(one)
        came = block.open_time_ms + STEP + 400
        if one == BTC:
            came[AT] += STEP // 2
        lake.append(one, block, available_at_ms=came)
    Viewed(tmp_path).decide(10)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.LATE}
    assert {one.open_time_ms for one in report.differences} == {START + AT * STEP}
    assert "only later" in report.differences[0].detail


def test_late_and_begun_elsewhere(tmp_path):
    """A worker that began at another candle differs by that in what remembers, and at BTC's late candle by both."""
    stored(tmp_path)
    Viewed(tmp_path, begin=50, late=(AT,)).decide(8)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.OTHER_START, Cause.LATE}
    late = [one for one in report.differences if one.cause is Cause.LATE]
    assert {(one.series, one.open_time_ms) for one in late} == {(ETH, START + AT * STEP)}
    assert "z_score_20" not in {name for one in report.differences for name in one.features}


def test_an_included_symbol_corrected_after_use(tmp_path):
    """A correction of BTC is the cause of what rows of ETH read of it, and of nothing else of theirs."""
    lake = stored(tmp_path)
    Viewed(tmp_path).decide(6)
    block = _candles(BTC)
    values = block.values[AT : AT + 1] * 1.001
    lake.append(BTC, CandleBlock(block.open_time_ms[AT : AT + 1], values), available_at_ms=START + 1000 * STEP)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.CORRECTED}
    assert _added(report)[Cause.CORRECTED] <= OF_BTC
    assert min(one.open_time_ms for one in report.differences) == START + AT * STEP


def test_an_included_symbol_with_a_gap(tmp_path):
    """Where BTC's candle never came to the worker, rows of ETH after it read BTC without it."""
    stored(tmp_path)
    Viewed(tmp_path, missed=(AT,)).decide(8)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.LATE, Cause.GAP}
    assert {one.open_time_ms for one in report.differences if one.series == ETH and one.cause is Cause.LATE} == {
        START + AT * STEP
    }
    assert set().union(*_added(report).values()) <= OF_BTC
    refuse_unexplained(report)


def test_an_included_symbol_that_the_lake_lacks(tmp_path):
    """Without BTC in the lake what was read of it cannot be recomputed, and that is said."""
    lake = stored(tmp_path)
    Viewed(tmp_path).decide(2)
    for path in lake.paths(BTC):
        path.unlink()

    assert _added(_audit(tmp_path)) == {Cause.NOT_YET: OF_BTC}


def test_a_poisoned_included_symbol_is_unexplained(tmp_path):
    """A candle of BTC changed in its file shows in what ETH read of it, and no cause explains it."""
    lake = stored(tmp_path)
    Viewed(tmp_path).decide(6)
    path = lake.paths(BTC)[-1]
    with locked(path):
        rows = read_partition(path)
        rows.block.values[AT, :4] *= 1.01
        write_partition(path, rows)
    report = _audit(tmp_path)

    assert set(_added(report)) == {Cause.UNEXPLAINED}
    with pytest.raises(SkewError):
        refuse_unexplained(report)


def test_one_bit_of_an_added_input_is_found(tmp_path, monkeypatch):
    """A single added input that was read one last bit off is named, and nothing else is."""
    stored(tmp_path)
    worker = Viewed(tmp_path)
    _read_one_bit_off(worker, "z_score_20", monkeypatch)
    worker.decide(1)
    report = _audit(tmp_path)

    assert [(one.series, one.cause, one.features) for one in report.differences] == [
        (ETH, Cause.UNEXPLAINED, ("z_score_20",))
    ]


def _read_one_bit_off(worker, name, monkeypatch) -> None:
    """Let what ETH reads of one input be one last bit off."""
    column, before = worker.live.view.input_names.index(name), worker.live.latest

    def off():
        latest = before()
        latest.model_inputs[1, column] = np.nextafter(latest.model_inputs[1, column], np.float32(np.inf))
        return latest

    monkeypatch.setattr(worker.live, "latest", off)


def test_a_defect_beside_a_gap_is_unexplained(tmp_path, monkeypatch):
    """That the worker missed a candle of BTC excuses nothing of what is not BTC's."""
    stored(tmp_path)
    worker = Viewed(tmp_path, missed=(AT,))
    _read_one_bit_off(worker, "z_score_20", monkeypatch)
    worker.decide(8)
    report = _audit(tmp_path)

    assert _added(report)[Cause.UNEXPLAINED] == {"z_score_20"}
    assert "z_score_20" not in _added(report)[Cause.GAP]
    with pytest.raises(SkewError, match="z_score_20"):
        refuse_unexplained(report)


def test_a_defect_of_other_code_fails(tmp_path, monkeypatch):
    """A difference that other code made is named, and fails."""
    stored(tmp_path)
    worker = Viewed(tmp_path)
    worker.used._code = "0123456789abcdef"
    _read_one_bit_off(worker, "z_score_20", monkeypatch)
    worker.decide(1)
    report = _audit(tmp_path)

    assert _added(report) == {Cause.CODE: {"z_score_20"}}
    with pytest.raises(SkewError, match="install one version for both"):
        refuse_unexplained(report)


def test_a_lake_that_lacks_an_included_symbol_excuses_only_what_is_of_it(tmp_path, monkeypatch):
    """Where BTC cannot be compared, what is not read of BTC is compared still."""
    lake = stored(tmp_path)
    worker = Viewed(tmp_path)
    _read_one_bit_off(worker, "z_score_20", monkeypatch)
    worker.decide(1)
    for path in lake.paths(BTC):
        path.unlink()

    assert _added(_audit(tmp_path)) == {Cause.NOT_YET: OF_BTC, Cause.UNEXPLAINED: {"z_score_20"}}


def test_other_settings_are_named(tmp_path, monkeypatch):
    """Where the audit runs with other added inputs than the worker had, it says so, and compares the 49 still."""
    stored(tmp_path)
    Viewed(tmp_path).decide(2)
    monkeypatch.delenv("QT_EXTENSIONS")
    report = _audit(tmp_path)

    assert {one.cause for one in report.differences} == {Cause.FINGERPRINT}
    assert len(report.differences) == 4
    assert "the settings here give" in report.differences[0].detail


def test_damaged_added_inputs_are_refused(tmp_path):
    """An entry whose added inputs are cut short is told by its number, not read."""
    stored(tmp_path)
    worker = Viewed(tmp_path)
    event = worker.used.record(worker.live.latest(), [0], continuity=worker.live.continuity, candle_close_ms=START)
    data = json.loads(canonical(event))
    data["added"]["names"] = data["added"]["names"][1:]
    with JournalWriter.open(worker.journal) as journal:
        journal.record(event_from(data), timestamp_ms=START)

    with pytest.raises(JournalError, match=r"entry \d+ .* packed inputs"):
        _audit(tmp_path)


def event_from(data) -> FeaturesUsed:
    """Return the record that such data are."""
    return msgspec.convert(data, FeaturesUsed)
