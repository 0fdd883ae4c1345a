from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.absences import Span
from feature_store.candle import LOW, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.kinds.definition import FILTERS, Subject
from feature_store.kinds.records import Records
from feature_store.lake import CandleLake
from feature_store.past_lake import PastLake
from feature_store.sources.listings import Listed, note_listing
from feature_store.standard import Doubt, SeriesQuality, Uncovered, present_shares, qualities, uncovered_by
from flows.coverage_map import heat_map, quality_rows
from flows.frames import recent_frames
from flows.judging import judged
from flows.settings import FlowSettings
from tests.feature_support import BTC, ETH, STEP, T0, market, without

SPAN = Span(T0, T0 + 1000 * STEP)


def spoilt(block: CandleBlock, rows: range) -> CandleBlock:
    """Return a block with lows far below everything, as LINK had one."""
    values = block.values.copy()
    values[rows, LOW] = 0.0001
    return CandleBlock(block.open_time_ms, values)


def test_outages_and_a_few_bad_ticks_are_forgiven():
    """A venue that was down for a third of the time, and three wicks, are no reason to leave a series out."""
    whole = without(market(1000), np.r_[300:633])
    found = qualities({BTC: spoilt(whole, range(10, 13)), ETH: whole})

    assert (found[BTC].expected, found[BTC].found, found[BTC].outage, found[BTC].unexplained) == (1000, 667, 333, 0)
    assert len(found[BTC].suspects) == 3
    assert found[BTC].faults == found[ETH].faults == ()


def test_what_is_absent_without_an_outage_is_a_fault_beyond_a_fifth():
    """The sentence tells how many are absent, of how many, and what to do."""
    whole = market(1000)
    found = qualities({BTC: without(whole, np.r_[300:501]), ETH: whole})
    (fault,) = found[BTC].faults
    assert fault.startswith("BTC/USDT:USDT lacks 201 of 1000 candles without an outage of the venue, more than 20%")
    assert "qtctl ingest --repair" in fault
    assert qualities({BTC: without(whole, np.r_[300:500]), ETH: whole})[BTC].faults == ()


def test_many_suspect_prices_are_a_fault():
    """One more than is forgiven is told, with the first of them."""
    (fault,) = qualities({BTC: spoilt(market(1000), range(500, 504))})[BTC].faults
    assert "4 suspect prices in 1000 candles" in fault
    assert str(T0 + 500 * STEP) in fault


ASKED = Span(T0, T0 + 600 * STEP)


def ends(rows, **known) -> Uncovered:
    """What a series with some of six hundred candles leaves uncovered of them."""
    return uncovered_by(market(600)[rows], ASKED, STEP, **({"listed_ms": None, "is_over": False} | known))


def moment(row: int) -> int:
    """When a candle opens."""
    return T0 + row * STEP


def test_the_ends_of_a_series_count_unless_something_explains_them():
    """A late listing, an end of trading and the venue's own word explain absence; an import may begin later."""
    assert ends(np.r_[0:600]) == Uncovered()
    assert ends(np.r_[0:50]) == Uncovered(after=550)
    assert ends(np.r_[0:50], is_over=True) == Uncovered()
    assert ends(np.r_[0:50], confirmed=[Span(moment(50), moment(200))]) == Uncovered(after=400)
    assert ends(np.r_[0:50], confirmed=[Span(moment(50), moment(325))]) == Uncovered(), "It has been silent for long"
    assert ends(np.r_[500:600]) == Uncovered(late=500)
    assert ends(np.r_[500:600], listed_ms=moment(0) - 1) == Uncovered(before=500)
    assert ends(np.r_[500:600], listed_ms=moment(499) + 1) == Uncovered()
    assert ends(np.r_[500:600], listed_ms=moment(0), confirmed=[Span(moment(0), moment(500))]) == Uncovered()
    assert ends(np.r_[0:0]) == Uncovered(after=600)
    assert ends(np.r_[0:0], listed_ms=moment(590)) == Uncovered(after=10)


def test_more_than_a_twentieth_at_the_ends_is_a_fault():
    """The sentence tells how many of those asked for are covered, and what to do; a late beginning is only told."""
    blocks = {BTC: market(600)[:569]}

    def judged(**uncovered):
        return qualities(blocks, uncovered={BTC: Uncovered(**uncovered)})[BTC]

    assert judged(after=29).faults == judged(before=14, after=15).faults == judged(late=400).faults == ()
    (fault,) = judged(before=10, after=21).faults
    assert fault.startswith("BTC/USDT:USDT covers 569 of 600 candles asked for")
    assert "10 before the first that is stored and 21 after the last that is stored are absent" in fault
    assert "--days" in fault
    assert judged(late=29).remarks == ()
    assert judged(late=400).remarks == (
        "BTC/USDT:USDT begins 400 candles later than asked for; when it was listed is not known",
    )


DOUBT = Doubt(ends=0, page_ms=39 * STEP, until_ms=moment(600))


def test_what_the_venue_has_not_answered_for_is_a_shortfall():
    """Ends and holes longer than a page count alike; what the venue said three times does not, nor does an outage."""
    holed, doubts = {BTC: without(market(600), np.r_[100:140])}, {BTC: DOUBT}
    told = qualities(holed, doubts=doubts)[BTC].shortfall
    assert told is not None
    assert told.startswith("BTC/USDT:USDT has 560 of 600 candles asked for, and the venue has not confirmed of 40")
    assert qualities(holed, doubts=doubts, confirmed={BTC: [Span(moment(100), moment(140))]})[BTC].shortfall is None
    assert qualities(holed | {ETH: holed[BTC]}, doubts=doubts)[BTC].shortfall is None
    assert qualities({BTC: market(600)}, doubts=doubts)[BTC].shortfall is None
    assert qualities({BTC: market(600)}, doubts={BTC: replace(DOUBT, ends=31)})[BTC].shortfall is not None
    late = qualities({BTC: market(600)[500:]}, uncovered={BTC: Uncovered(late=500)}, doubts=doubts)[BTC]
    assert late.shortfall is None
    assert "begins 500 candles later than asked for" in late.remarks[0]


def test_a_hole_within_a_page_is_the_answer_of_the_venue():
    """Candles on both sides came in one answer, which has none between; what is too young counts nowhere."""
    holed = {BTC: without(market(600), np.r_[100:140, 200:239, 300:600:2])}
    assert qualities(holed, doubts={BTC: DOUBT})[BTC].unconfirmed == 40
    assert qualities(holed, doubts={BTC: replace(DOUBT, page_ms=40 * STEP)})[BTC].unconfirmed == 0
    assert qualities(holed, doubts={BTC: replace(DOUBT, until_ms=moment(110))})[BTC].unconfirmed == 10
    assert qualities(holed)[BTC].unconfirmed == 0
    outage = {BTC: without(market(600), np.r_[100:140]), ETH: without(market(600), np.r_[100:120])}
    assert qualities(outage, doubts={BTC: DOUBT})[BTC].unconfirmed == 20, "The hole is as long as both its causes"


def test_judging_many_holes_costs_what_they_are_not_their_square():
    """
    Three months of minutes with every third absent, each hole confirmed for itself, are judged in seconds.

    Looking through all confirmed holes for each absent candle, this took ten minutes.
    """
    minutes, step = Series("sandbox", BTC.symbol, Timeframe.M1), Timeframe.M1.milliseconds
    whole = market(120_000)
    times = T0 + np.arange(len(whole), dtype=np.int64) * step
    absent = np.arange(1, len(whole) - 1, 3)
    block = without(CandleBlock(times, whole.values), absent)
    told = [Span(time, time + step) for time in times[absent[:-10]].tolist()]
    doubts = {minutes: Doubt(ends=0, page_ms=0, until_ms=int(times[-1]))}
    assert qualities({minutes: block}, confirmed={minutes: told}, doubts=doubts)[minutes].unconfirmed == 10


def test_shares_tell_where_candles_are_absent():
    """Each part of a span has its own share, and a candle belongs to one part."""
    shares = present_shares(BTC, without(market(1000), np.r_[100:150, 900:1000]), SPAN, 10)
    assert shares == (1, 0.5, 1, 1, 1, 1, 1, 1, 1, 0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return settings of a home whose lake has one sound and one spoilt series."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    settings = FlowSettings.of(venue="sandbox", timeframe="5m", days=3)
    lake = CandleLake(settings.lake)
    lake.append(BTC, market(1000))
    lake.append(ETH, spoilt(market(1000), range(500, 510)))
    return settings, lake


def asked_for(settings, block: CandleBlock, **listed: int) -> SeriesQuality:
    """Judge a series of six hundred candles that were asked for, as an ingest does after its first run."""
    lake, one = settings.candle_lake(), Series("sandbox", "NEW/USDT:USDT", Timeframe.M5)
    if listed:
        note_listing(lake, one, Listed(**listed))
    if len(block):
        lake.append(one, block)
    return judged(lake, lake.read_many([one], ASKED.start_ms, ASKED.end_ms), ASKED)[one]


def test_a_fresh_home_has_no_shortfall_where_nobody_traded(home):
    """A venue that leaves out candles without trades, and tells no listing, has given what it has at the first run."""
    thin = np.flatnonzero(np.arange(600) % 5 < 3)
    quality = asked_for(home[0], market(600)[thin[(thin > 100) & (thin < 570)]])
    assert (quality.shortfall, quality.unexplained > 150, quality.uncovered.late > 100) == (None, True, True)


def test_a_venue_that_stopped_early_has_a_shortfall_without_its_newest_hours(home):
    """Three askings an hour apart take three hours: what is younger could not be confirmed, and is not counted."""
    quality = asked_for(home[0], market(600)[:500])
    assert quality.shortfall is not None
    assert "has not confirmed of 64" in quality.shortfall
    assert asked_for(home[0], market(600)[500:560]).shortfall is None


@pytest.mark.parametrize("listed", [{}, {"since_ms": T0}])
def test_no_candle_at_all_is_a_shortfall_where_the_listing_is_known(home, listed):
    """Nobody knows whether one of unknown listing trades yet, and that is told."""
    quality = asked_for(home[0], market(600)[:0], **listed)
    assert (quality.shortfall is None) is not bool(listed)
    assert quality.remarks == (
        () if listed else ("NEW/USDT:USDT has none of 600 candles asked for; perhaps it is too young",)
    )
    assert quality.faults, "There is nothing to learn from"


def test_what_traded_before_and_has_no_candle_any_more_is_a_shortfall(home):
    """That it was stored tells that it was listed."""
    lake, one = home[0].candle_lake(), Series("sandbox", "OLD/USDT:USDT", Timeframe.M5)
    lake.append(one, market(600)[:100])
    asked = Span(moment(200), moment(600))
    quality = judged(lake, lake.read_many([one], asked.start_ms, asked.end_ms), asked)[one]
    assert quality.shortfall is not None
    assert "has 0 of 400 candles asked for" in quality.shortfall


def test_training_leaves_a_bad_series_out_and_says_why(home):
    """The sound series is trained on; of the other a sentence is told."""
    settings, _ = home
    told = []
    frames = recent_frames(settings, 12, told.append)
    assert frames.symbols == (BTC.symbol,)
    (sentence,) = told
    assert sentence.startswith("Left out: ETH/USDT:USDT has 10 suspect prices")


def test_training_refuses_where_nothing_is_sound(home):
    """With no series left, training says so instead of learning from bad data."""
    settings, lake = home
    lake.append(BTC, spoilt(market(1000), range(200, 210)), available_at_ms=T0 + 10_000 * STEP)
    with pytest.raises(BadInputError, match=r"No series is good enough to learn from: BTC/USDT:USDT has 10 suspect"):
        recent_frames(settings, 12)


def test_training_refuses_a_lake_that_does_not_reach_back(home):
    """Ninety days asked for and three and a half there is no training set of ninety days, and that is said."""
    settings, _ = home
    with pytest.raises(BadInputError, match=r"Asked for 90 days, the lake holds 3\.47; .*--days"):
        recent_frames(settings.model_copy(update={"days": 90}), 12)


def test_training_leaves_out_what_ends_early_and_keeps_what_is_young(home):
    """One that stopped is left out with its counts; one that is younger is learned from, and told; all are shown."""
    settings, lake = home
    early, young = (Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5) for name in ("ENDS", "YOUNG"))
    lake.append(early, market(1000)[:400])
    lake.append(young, market(1000)[700:])
    told, shown = [], {}
    frames = recent_frames(settings, 12, told.append, shown.update)

    assert frames.symbols == (BTC.symbol, young.symbol)
    assert any(line.startswith("Left out: ENDS/USDT:USDT covers 264 of 864 candles asked for") for line in told)
    assert any(line.startswith("YOUNG/USDT:USDT begins 564 candles later than asked for") for line in told)
    assert {one: (quality.found, quality.expected) for one, quality in shown.items()} == {
        BTC: (864, 864),
        ETH: (864, 864),
        early: (264, 864),
        young: (300, 300),
    }


def test_what_explains_an_end_keeps_a_series(home):
    """A symbol that its venue trades no more, and one that was listed later, are learned from without a word."""
    settings, lake = home
    gone, listed = (Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5) for name in ("GONE", "LISTED"))
    lake.append(gone, market(1000)[:400])
    lake.append(listed, market(1000)[700:])
    note_listing(lake, gone, Listed(since_ms=1, is_over=True))
    note_listing(lake, listed, Listed(since_ms=moment(699) + 1))
    told = []
    assert recent_frames(settings, 12, told.append).symbols == (BTC.symbol, gone.symbol, listed.symbol)
    assert len(told) == 1
    note_listing(lake, listed, Listed(since_ms=1))
    assert listed.symbol not in recent_frames(settings, 12).symbols


def test_recorded_filters_tell_of_a_listing_too(home):
    """What the venue was seen to say of an instrument counts where no ingest has noted it."""
    settings, lake = home
    old, over = (Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5) for name in ("OLD", "OVER"))
    lake.append(old, market(1000)[700:])
    lake.append(over, market(1000)[:400])
    for one, status in ((old, "TRADING"), (over, "SETTLING")):
        columns = {column.name: [1.0] for column in FILTERS.columns} | {"status": [status], "listed_ms": [T0]}
        said = Records.of(FILTERS, [moment(900)], **columns)
        settings.kind_store().append(Subject.of(FILTERS, one), said, arrived_ms=moment(900))
    told = []
    assert recent_frames(settings, 12, told.append).symbols == (BTC.symbol, over.symbol)
    assert any(line.startswith("Left out: OLD/USDT:USDT covers 300 of 864 candles asked for") for line in told)


def test_what_was_recorded_of_a_listing_later_was_not_known(home):
    """As of a moment before the venue was seen to end an instrument, that it ended excuses nothing."""
    settings, lake = home
    over = Series("sandbox", "OVER/USDT:USDT", Timeframe.M5)
    lake.append(over, market(1000)[:400])
    columns = {column.name: [1.0] for column in FILTERS.columns} | {"status": ["SETTLING"], "listed_ms": [T0]}
    said = Records.of(FILTERS, [moment(950)], **columns)
    settings.kind_store().append(Subject.of(FILTERS, over), said, arrived_ms=moment(950))
    asked = Span(moment(100), moment(900))
    then, later = (
        judged(past, past.read_many([over], asked.start_ms, asked.end_ms), asked)[over]
        for past in (PastLake(lake, moment(950) + late_ms) for late_ms in (-1, 0))
    )

    assert any("300 of 800" in fault for fault in then.faults)
    assert later.faults == ()


def test_report_and_map_show_each_series(home):
    """The table has a row and a verdict for each series, the map a cell for each part of the span."""
    _, lake = home
    blocks = lake.read_many([BTC, ETH])
    rows = quality_rows(qualities(blocks))
    assert [row["symbol"] for row in rows] == [BTC.symbol, ETH.symbol]
    assert rows[0]["verdict"] == "sound"
    assert "suspect prices" in rows[1]["verdict"]

    text = heat_map({BTC: without(blocks[BTC], np.r_[0:500])}, SPAN)
    (line,) = [line for line in text.splitlines() if line.startswith("| BTC/USDT:USDT |")]
    assert line.count("·") == line.count("█") == 12
