"""What decisions read is held against the lake: every cause of a difference is brought about, found and named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.features import native
from feature_store.features.definition import FEATURE_NAMES
from feature_store.features.live import LiveFeatures
from feature_store.features.state import state_path
from feature_store.lake import CandleLake
from feature_store.partitions import locked, read_partition, write_partition
from feature_store.skew import Cause
from feature_store.store import FeatureStore
from flows.settings import FlowSettings
from flows.skewing import SkewError, audit_skew, refuse_unexplained
from inference import cli
from inference.domain.events import FeaturesUsed
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from inference.signals.used_features import UsedFeatures

BTC, ETH = (Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5) for name in ("BTC", "ETH"))
STEP = Timeframe.M5.milliseconds
START = 1_767_571_200_000
COUNT = 400
"""Candles until the worker begins to decide."""


def _candles(series: Series, count: int = COUNT + 60) -> CandleBlock:
    rng = np.random.default_rng(len(series.symbol) + ord(series.symbol[0]))
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, count)))
    opened = np.append(100.0, close[:-1])
    high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
    values = np.stack([opened, high, low, close, rng.uniform(1, 2, count)], axis=1)
    return CandleBlock(START + STEP * np.arange(count, dtype=np.int64), values)


class Pipeline:
    """The part of a worker that reads candles and records what a decision reads, on a journal of its own."""

    def __init__(self, home, *, begin: int = 0, code: str | None = None) -> None:
        self.home = home
        self.journal = home / "journal" / "journal.jsonl"
        self.live = LiveFeatures((BTC.symbol, ETH.symbol))
        self.used = UsedFeatures(
            self.live.symbols, venue="sandbox", timeframe="5m", code=code or native.made_from()[:16]
        )
        self.saw = {one: _candles(one) for one in (BTC, ETH)}
        self.at = COUNT
        for one in (BTC, ETH):
            self._advance(one, self.saw[one][begin:COUNT])

    def _advance(self, series: Series, block: CandleBlock) -> None:
        rows = self.live.advance(series.symbol, block)
        if len(rows):
            self.used.keep(series.symbol, rows[-1])

    def decide(self, count: int = 5, *, skip: tuple[int, ...] = ()) -> None:
        """Take in candles one by one and journal what was read at each; those in `skip` never arrive."""
        with JournalWriter.open(self.journal) as journal:
            for _ in range(count):
                if self.at not in skip:
                    for one in (BTC, ETH):
                        self._advance(one, self.saw[one][self.at : self.at + 1])
                    latest = self.live.latest()
                    close_ms = START + (self.at + 1) * STEP
                    event = self.used.record(latest, [0, 1], continuity=self.live.continuity, candle_close_ms=close_ms)
                    journal.record(event, timestamp_ms=close_ms + 500)
                self.at += 1


def stored(home, *, begin: int = 0, without: tuple[int, ...] = (), count: int = COUNT + 60) -> CandleLake:
    lake = CandleLake(home / "lake")
    for one in (BTC, ETH):
        block = _candles(one)
        kept = np.array([at for at in range(begin, count) if at not in without])
        lake.append(one, CandleBlock(block.open_time_ms[kept], block.values[kept]))
    return lake


def _audit(home, hours: int = 24):
    return audit_skew(FlowSettings.of(home=home, venue="sandbox"), hours)


def _causes(report) -> set[tuple[str, Cause]]:
    return {(one.series.symbol, one.cause) for one in report.differences}


def test_a_clean_run_has_no_difference(tmp_path):
    """A worker that saw what the lake holds read what the lake gives, row for row."""
    stored(tmp_path)
    Pipeline(tmp_path).decide(20)

    report = _audit(tmp_path)

    assert (report.rows, report.series, report.differences) == (40, 2, ())
    refuse_unexplained(report)


def test_a_candle_corrected_after_use(tmp_path):
    """A later revision is the cause for its candle and those after it, and for nothing before it or beside it."""
    lake = stored(tmp_path)
    Pipeline(tmp_path).decide(10)
    at = COUNT + 4
    block = _candles(BTC)
    corrected = block.values[at : at + 1] * 1.001
    lake.append(BTC, CandleBlock(block.open_time_ms[at : at + 1], corrected), available_at_ms=START + 1000 * STEP)

    report = _audit(tmp_path)

    assert _causes(report) == {(BTC.symbol, Cause.CORRECTED)}
    assert {one.open_time_ms for one in report.differences} == {START + n * STEP for n in range(at, COUNT + 10)}
    own = next(one for one in report.differences if one.open_time_ms == START + at * STEP)
    assert {"open", "high", "low", "close", "volume", "rsi_14"} <= set(own.features)
    refuse_unexplained(report)


def test_corrections_before_and_after_a_restart(tmp_path):
    """A state that was made between two corrections is known by neither the oldest nor the newest candles alone."""
    lake = stored(tmp_path)
    block = _candles(BTC)

    def correct(at: int, factor: float, known: int) -> None:
        values = block.values[at : at + 1] * factor
        lake.append(BTC, CandleBlock(block.open_time_ms[at : at + 1], values), available_at_ms=START + known * STEP)

    correct(COUNT - 30, 1.002, COUNT - 10)
    worker = Pipeline(tmp_path)
    # The worker restarted after the first correction, so it goes on from what the lake held then.
    worker.live.rebuild(BTC.symbol, lake.read(BTC, None, START + COUNT * STEP))
    worker.decide(5)
    correct(COUNT - 20, 1.003, 2000)

    report = _audit(tmp_path)

    assert _causes(report) == {(BTC.symbol, Cause.CORRECTED)}
    assert len(report.differences) == 5


def test_a_worker_that_began_at_another_candle(tmp_path):
    """Features with a long memory differ where a worker began later than the lake; those with a short one do not."""
    stored(tmp_path)
    Pipeline(tmp_path, begin=50).decide(3)

    report = _audit(tmp_path)

    assert _causes(report) == {(BTC.symbol, Cause.OTHER_START), (ETH.symbol, Cause.OTHER_START)}
    names = {name for one in report.differences for name in one.features}
    assert {"obv", "vpt"} <= names
    assert not names & {"close", "sma_50", "log_return_24", "cci_20"}


def test_other_start_and_a_correction_at_once(tmp_path):
    """Two causes on one candle are told apart, and together explain all of it."""
    lake = stored(tmp_path)
    Pipeline(tmp_path, begin=50).decide(3)
    block, at = _candles(ETH), COUNT + 1
    lake.append(
        ETH,
        CandleBlock(block.open_time_ms[at : at + 1], block.values[at : at + 1] * 1.001),
        available_at_ms=START + 1000 * STEP,
    )

    report = _audit(tmp_path)

    assert not report.unexplained
    assert (ETH.symbol, Cause.CORRECTED) in _causes(report)
    assert (BTC.symbol, Cause.CORRECTED) not in _causes(report)


def test_a_candle_that_the_lake_lacks(tmp_path):
    """A hole at a candle that was decided on is named there; what comes of it later cannot be brought about."""
    stored(tmp_path, without=(COUNT + 2,))
    Pipeline(tmp_path).decide(6)

    report = _audit(tmp_path)

    found = {one.open_time_ms: one for one in report.differences if one.series == BTC}
    own, next_one = START + (COUNT + 2) * STEP, START + (COUNT + 3) * STEP
    assert min(found) == own
    assert (found[own].cause, found[own].detail) == (Cause.MISSING, "the candle itself is not stored")
    assert found[next_one].cause is Cause.UNEXPLAINED
    assert f"the worker saw {COUNT + 4} candles, the lake holds {COUNT + 3}" in found[next_one].detail
    with pytest.raises(SkewError, match="ingest with --repair, then audit again"):
        refuse_unexplained(report)
    lake = stored(tmp_path)
    assert len(lake.read(BTC)) == COUNT + 60
    assert _audit(tmp_path).differences == ()


def test_a_lake_that_is_behind(tmp_path):
    """Candles newer than the lake's last one are not missing but not yet there; older ones are compared."""
    stored(tmp_path, count=COUNT + 2)
    Pipeline(tmp_path).decide(5)

    report = _audit(tmp_path)

    assert {cause for _, cause in _causes(report)} == {Cause.NOT_YET}
    assert min(one.open_time_ms for one in report.differences) == START + (COUNT + 2) * STEP


def test_an_empty_lake_lacks_everything(tmp_path):
    """Where nothing of a series is stored, each of its rows is missing, and the audit ends."""
    Pipeline(tmp_path).decide(2)

    assert _causes(_audit(tmp_path)) == {(BTC.symbol, Cause.MISSING), (ETH.symbol, Cause.MISSING)}


def test_candles_that_the_worker_never_saw(tmp_path):
    """A gap in what the worker saw, filled in the lake since, is found again by leaving those candles out."""
    stored(tmp_path)
    Pipeline(tmp_path).decide(12, skip=(COUNT + 3, COUNT + 4, COUNT + 8))

    report = _audit(tmp_path)

    assert {cause for _, cause in _causes(report)} == {Cause.GAP}
    assert min(one.open_time_ms for one in report.differences) == START + (COUNT + 5) * STEP
    assert all("it is the same" in one.detail for one in report.differences)


def _spoil(worker: Pipeline) -> None:
    """Plant a defect: what the worker journals of two features is not what its candles give."""
    keep = worker.used.keep

    def spoilt(symbol, row):
        changed = row.copy()
        changed[FEATURE_NAMES.index("rsi_14")] += 5
        changed[FEATURE_NAMES.index("ema_50")] *= 1.01
        keep(symbol, changed)

    worker.used.keep = spoilt


@pytest.mark.parametrize("missed", [COUNT - 300, COUNT - 30, COUNT + 3])
def test_a_defect_behind_a_gap_is_unexplained(tmp_path, missed):
    """A candle that the worker missed, long ago or lately, excuses nothing but what leaving it out gives again."""
    stored(tmp_path)
    worker = Pipeline(tmp_path)
    for one in (BTC, ETH):
        block = _candles(one)
        kept = np.arange(COUNT)[np.arange(COUNT) != missed]
        worker.live.rebuild(one.symbol, CandleBlock(block.open_time_ms[kept], block.values[kept]))
    _spoil(worker)
    worker.decide(8, skip=(missed,))

    report = _audit(tmp_path)

    defects = {name for one in report.unexplained for name in one.features}
    assert {"rsi_14", "ema_50"} <= defects
    assert all({"rsi_14", "ema_50"}.isdisjoint(one.features) for one in report.differences if one.cause is Cause.GAP)
    with pytest.raises(SkewError, match="ema_50"):
        refuse_unexplained(report)


def test_a_defect_of_other_code_fails(tmp_path):
    """Features of one fingerprint are the same in all code: a difference by other code is named, and fails."""
    stored(tmp_path)
    worker = Pipeline(tmp_path, code="0123456789abcdef")
    _spoil(worker)
    worker.decide(2)

    report = _audit(tmp_path)

    assert {one.cause for one in report.differences} == {Cause.CODE}
    with pytest.raises(SkewError, match="code 0123456789abcdef computed it"):
        refuse_unexplained(report)


def test_gaps_of_before_the_hours_that_are_audited(tmp_path):
    """What the worker missed before is known from older entries; what the lake lacks as well is no gap of its own."""
    both_lack = COUNT - 200
    stored(tmp_path, without=(both_lack,))
    worker = Pipeline(tmp_path)
    for one in (BTC, ETH):
        block = _candles(one)
        kept = np.arange(COUNT)[np.arange(COUNT) != both_lack]
        worker.live.rebuild(one.symbol, CandleBlock(block.open_time_ms[kept], block.values[kept]))
    worker.decide(40, skip=(COUNT + 3, COUNT + 4, COUNT + 9))

    report = _audit(tmp_path, hours=1)

    assert report.rows == 2 * 13
    assert {one.cause for one in report.differences} == {Cause.GAP}
    refuse_unexplained(report)


def test_a_gap_and_a_correction_at_once(tmp_path):
    """A candle that was missed and another one corrected after use are brought about together."""
    lake, block = stored(tmp_path), _candles(BTC)
    Pipeline(tmp_path).decide(12, skip=(COUNT + 3,))
    at = COUNT + 6
    corrected = block.values[at : at + 1] * 1.001
    lake.append(BTC, CandleBlock(block.open_time_ms[at : at + 1], corrected), available_at_ms=START + 1000 * STEP)

    report = _audit(tmp_path)

    assert Cause.GAP in {one.cause for one in report.differences if one.series == BTC}
    refuse_unexplained(report)


def test_a_poisoned_lake_is_unexplained(tmp_path):
    """A candle changed in the file, past all revisions, is what no cause explains: the audit fails and names it."""
    lake = stored(tmp_path)
    Pipeline(tmp_path).decide(4)
    path = lake.paths(ETH)[-1]
    with locked(path):
        rows = read_partition(path)
        rows.block.values[COUNT + 2, 4] *= 2
        write_partition(path, rows)

    report = _audit(tmp_path)

    assert _causes(report) == {(ETH.symbol, Cause.UNEXPLAINED)}
    first = report.unexplained[0]
    assert first.open_time_ms == START + (COUNT + 2) * STEP
    assert "volume" in first.features
    assert "close" not in first.features
    assert "another candle than was ever stored (volume)" in first.detail
    with pytest.raises(SkewError, match="volume"):
        refuse_unexplained(report)


def test_one_bit_is_found(tmp_path):
    """A single feature that was read one last bit off is found and named, and nothing else is."""
    stored(tmp_path)
    worker = Pipeline(tmp_path)
    keep = worker.used.keep

    def off(symbol, row):
        changed = row.copy()
        column = FEATURE_NAMES.index("adx_14")
        changed[column] = np.nextafter(changed[column], np.inf)
        keep(symbol, changed)

    worker.used.keep = off
    worker.decide(1)

    report = _audit(tmp_path)

    assert {one.features for one in report.differences} == {("adx_14",)}
    assert {one.cause for one in report.differences} == {Cause.UNEXPLAINED}


def test_other_code_is_named(tmp_path):
    """Where other code computed what was read, a difference that nothing else explains is put down to it, and fails."""
    lake = stored(tmp_path)
    Pipeline(tmp_path, code="0123456789abcdef").decide(2)
    clean = _audit(tmp_path)
    path = lake.paths(BTC)[-1]
    with locked(path):
        rows = read_partition(path)
        rows.block.values[COUNT, 4] *= 2
        write_partition(path, rows)

    found = _audit(tmp_path)
    assert not clean.differences
    assert _causes(found) == {(BTC.symbol, Cause.CODE)}
    with pytest.raises(SkewError, match="install one version for both, then audit again"):
        refuse_unexplained(found)


def test_another_feature_set_is_not_compared(tmp_path):
    """Rows of another feature set are told by their fingerprint, whatever their digests."""
    stored(tmp_path)
    worker = Pipeline(tmp_path)
    worker.used._fingerprint = "f" * 64
    worker.decide(2)

    report = _audit(tmp_path)

    assert {one.cause for one in report.differences} == {Cause.FINGERPRINT}
    assert "ffffffffffff" in report.differences[0].detail


def test_a_restart_from_a_state_is_clean(tmp_path):
    """A worker that goes on from the lake's own state, as after a restart, differs in nothing."""
    lake = stored(tmp_path, count=COUNT)
    store = FeatureStore(tmp_path / "features")
    store.materialize(lake, [BTC, ETH])
    worker = Pipeline(tmp_path)
    for one in (BTC, ETH):
        assert worker.live.load(state_path(tmp_path / "features", one), one)
    worker.decide(3)
    stored(tmp_path)

    assert _audit(tmp_path).differences == ()


def test_retention_does_not_make_skew(tmp_path):
    """Where the lake's oldest candles are gone, features that were stored before say what they gave."""
    lake = stored(tmp_path)
    Pipeline(tmp_path).decide(5)
    FeatureStore(tmp_path / "features").materialize(lake, [BTC, ETH])
    for one in (BTC, ETH):
        path = lake.paths(one)[0]
        with locked(path):
            rows = read_partition(path)
            write_partition(path, rows.take(np.arange(200, len(rows))))

    assert _audit(tmp_path).differences == ()
    shutil.rmtree(tmp_path / "features")
    bare = _audit(tmp_path)
    assert {one.cause for one in bare.differences} == {Cause.UNEXPLAINED}
    assert "the lake holds" in bare.differences[0].detail


def test_only_the_newest_hours_are_audited(tmp_path):
    """Decisions older than asked for are left out."""
    stored(tmp_path)
    Pipeline(tmp_path).decide(24)

    assert _audit(tmp_path, hours=1).rows == 2 * 13


def test_the_command_says_what_and_why(tmp_path, monkeypatch, capsys):
    """`qtctl features skew` tells in words and as JSON, and its exit status says whether all is explained."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    assert cli.run(["features", "skew"]) == 2
    assert "start a worker first" in capsys.readouterr().err
    lake = stored(tmp_path)
    Pipeline(tmp_path, begin=50).decide(2)

    assert cli.run(["features", "skew"]) == 0
    shown = capsys.readouterr().out
    path = lake.paths(BTC)[-1]
    with locked(path):
        rows = read_partition(path)
        rows.block.values[COUNT, 1] *= 1.5
        write_partition(path, rows)
    assert cli.run(["features", "skew", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)

    assert "began at another candle" in shown
    assert told["unexplained"] == 2
    assert {one["cause"] for one in told["differences"]} == {Cause.OTHER_START.value, Cause.UNEXPLAINED.value}


def test_a_journal_without_a_record_is_refused(tmp_path):
    """Hours that are none, and a journal in which nothing was decided, are bad input that says what to do."""
    Pipeline(tmp_path).decide(0)

    with pytest.raises(BadInputError, match="let a worker decide first"):
        _audit(tmp_path)
    with pytest.raises(BadInputError, match="one hour at least"):
        _audit(tmp_path, hours=0)


def test_a_record_is_small(tmp_path):
    """A hundred symbols cost less than 20 kB of journal for each candle, and come back as they were written."""
    symbols = tuple(f"S{number:03}/USDT:USDT" for number in range(100))
    live, used = LiveFeatures(symbols), UsedFeatures(symbols, venue="sandbox", timeframe="5m", code="c" * 16)
    for symbol in symbols:
        used.keep(symbol, live.advance(symbol, _candles(Series("sandbox", symbol, Timeframe.M5), 300))[-1])
    event = used.record(live.latest(), range(100), continuity=live.continuity, candle_close_ms=START)
    path = tmp_path / "journal.jsonl"
    with JournalWriter.open(path) as journal:
        journal.record(event, timestamp_ms=START)

    assert path.stat().st_size < 20_000
    back = event_of(next(iter(read_entries(path))))
    assert isinstance(back, FeaturesUsed)
    assert back == event
