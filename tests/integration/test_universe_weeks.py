"""Weekly universes from a lake: what was known then, who left later, and what is stored of it."""

from __future__ import annotations

import multiprocessing

import msgspec
import numpy as np
import pytest

from feature_store.candle import CLOSE, VOLUME, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from feature_store.sources.recorded import read_file, unified_name
from feature_store.universe.archive import BUILD_DELAY_MS, Market, UniverseArchive, due_weeks
from feature_store.universe.building import build_weeks, members_between, membership_table, seen_ms, was_included
from feature_store.universe.facts import Listing, facts_at
from feature_store.universe.policy import Rules, read_rules
from feature_store.universe.selection import DAY_MS, WEEK_MS, Mode, Refusal, UniversePolicy, weekly_candidates
from tests.feature_support import market, python, recorded
from tests.universe_support import EVERYTHING, LISTS, MONDAY_MS, candles, hourly, perpetual

SANDBOX = Market("sandbox", Timeframe.H1)
WEEKS = [MONDAY_MS + week * WEEK_MS for week in range(5)]
RULES = Rules(UniversePolicy(mode=Mode.ALL, min_volume_24h=1e6, min_liquidity=5e4, min_age_days=7), LISTS)
NOW_MS = WEEKS[-1] + BUILD_DELAY_MS


@pytest.fixture
def lake(tmp_path) -> CandleLake:
    """Return five weeks in which LEFT stops after two and a half, NEW begins in the third, and QUIET hardly trades."""
    lake = CandleLake(tmp_path / "lake")
    start, end = WEEKS[0] - WEEK_MS, WEEKS[-1] + DAY_MS
    lake.append(hourly("STAYS"), candles(start, end))
    lake.append(hourly("LEFT"), candles(start, WEEKS[2] + WEEK_MS // 2, volume=3_000.0))
    lake.append(hourly("NEW"), candles(WEEKS[2] + DAY_MS, end, volume=2_000.0))
    lake.append(hourly("QUIET"), candles(start, end, volume=1.0))
    return lake


def _built(lake, tmp_path, rules=RULES, now_ms=NOW_MS, **how):
    archive = UniverseArchive(tmp_path / "universe")
    return archive, build_weeks(lake, archive, SANDBOX, rules, now_ms, **how)


def test_no_survivorship(lake, tmp_path):
    """The universe of a past week holds a symbol that left later; from the week in which it is gone, it is stale."""
    _, built = _built(lake, tmp_path)
    included = [one.universe.symbols for one in built]
    left = [one.universe.verdict(perpetual("LEFT")).refusal for one in built]

    assert [one.universe.at_ms for one in built] == WEEKS
    assert included[0] == included[2] == (perpetual("LEFT"), perpetual("STAYS"))
    assert included[4] == (perpetual("NEW"), perpetual("STAYS"))
    assert left == [None, None, None, Refusal.STALE, Refusal.STALE]
    assert built[1].universe.verdict(perpetual("NEW")) is None
    assert built[3].universe.verdict(perpetual("NEW")).refusal is Refusal.TOO_YOUNG
    assert {one.universe.verdict(perpetual("QUIET")).refusal for one in built} == {Refusal.VOLUME_BELOW_MINIMUM}


def test_figures_agree_with_numpy(tmp_path):
    """Volume of a day and the median hour of a week are what NumPy makes of the candles, around a gap too."""
    block = market(4_000, seed=3)
    kept = np.delete(np.arange(len(block)), slice(3_000, 3_040))
    block = CandleBlock(block.open_time_ms[kept], block.values[kept])
    series = Series("sandbox", "BTC/USDT:USDT", Timeframe.M5)
    lake = CandleLake(tmp_path)
    lake.append(series, block)
    moment = int(block.open_time_ms[-1]) + Timeframe.M5.milliseconds + BACKFILL_DELAY_MS
    ((_, (facts,)),) = facts_at(lake, [series], [moment])

    end = moment - BACKFILL_DELAY_MS
    notional = block.values[:, CLOSE] * block.values[:, VOLUME]
    hour = (block.open_time_ms - (end - WEEK_MS)) // 3_600_000
    hours = np.bincount(hour[hour >= 0], weights=notional[hour >= 0], minlength=168)
    assert facts.volume_24h == pytest.approx(notional[block.open_time_ms >= end - DAY_MS].sum(), rel=1e-9)
    assert facts.liquidity == pytest.approx(np.median(hours), rel=1e-9)
    assert (facts.first_open_ms, facts.last_close_ms) == (block.first_open_time_ms, end)


def test_what_came_later_changes_no_past_universe(lake, tmp_path):
    """Candles, corrections and announcements that became available after a moment leave its universe as it was."""
    series = lake.series()
    before = dict(facts_at(lake, series, WEEKS[:3]))
    correction = candles(WEEKS[1], WEEKS[1] + DAY_MS, volume=9e9)
    lake.append(hourly("QUIET"), correction, available_at_ms=WEEKS[2] + 1)
    lake.append(hourly("LATE"), candles(WEEKS[0] - WEEK_MS, WEEKS[-1], volume=9e9), available_at_ms=WEEKS[2] + 1)
    announced = [Listing(perpetual("STAYS"), WEEKS[2] + 1, listed_ms=WEEKS[0], delisted_ms=WEEKS[2])]
    after = dict(facts_at(lake, lake.series(), [*WEEKS[:3], WEEKS[2] + 1], announced))

    assert {moment: after[moment] for moment in before} == before
    told = {one.symbol: one for one in after[WEEKS[2] + 1]}
    assert perpetual("LATE") in told
    assert told[perpetual("STAYS")].delisted_ms == WEEKS[2]


def test_longer_candles(tmp_path):
    """With daily candles liquidity is the median day's hour, and a symbol is not stale for a day."""
    lake = CandleLake(tmp_path)
    series = Series("sandbox", "BTC/USDT:USDT", Timeframe.D1)
    days = np.arange(MONDAY_MS - 30 * DAY_MS, MONDAY_MS, DAY_MS, dtype=np.int64)
    lake.append(series, CandleBlock(days, np.tile([1.0, 1.0, 1.0, 1.0, 48e5], (len(days), 1))))
    ((_, facts),) = facts_at(lake, [series], [MONDAY_MS])
    universe = weekly_candidates(facts, RULES.policy, LISTS, MONDAY_MS)

    assert (facts[0].volume_24h, facts[0].liquidity) == (48e5, 2e5)
    assert universe.symbols == ("BTC/USDT:USDT",)


def test_building_again_writes_nothing_new(lake, tmp_path):
    """A second build makes only weeks that are missing; judging all again changes no file."""
    archive, built = _built(lake, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in archive.root.rglob("*.json")}

    assert build_weeks(lake, archive, SANDBOX, RULES, NOW_MS) == []
    assert build_weeks(lake, archive, SANDBOX, RULES, NOW_MS + 5, again=True) == built
    assert {path: path.stat().st_mtime_ns for path in archive.root.rglob("*.json")} == files
    assert build_weeks(lake, archive, SANDBOX, RULES, NOW_MS + WEEK_MS)[0].universe.at_ms == WEEKS[-1] + WEEK_MS


def test_a_correction_is_a_new_revision(lake, tmp_path):
    """What a later build finds different is kept beside the first, and known from that build on."""
    archive, built = _built(lake, tmp_path)
    extra = candles(WEEKS[0] - WEEK_MS, WEEKS[0], volume=5_000.0)
    lake.append(hourly("FOUND"), extra)  # Backfilled: it could have been known, but was not stored.
    later = NOW_MS + DAY_MS
    again = build_weeks(lake, archive, SANDBOX, RULES, later, again=True)

    assert [one.revision for one in again] == [1, 1, 1, 1, 1]
    assert again[0].available_at_ms == later
    assert again[0].universe.symbols[0] == perpetual("FOUND")
    assert archive.as_of(SANDBOX, RULES.fingerprint, WEEKS[0] + BUILD_DELAY_MS) == built[0]
    assert archive.as_of(SANDBOX, RULES.fingerprint, WEEKS[0] + BUILD_DELAY_MS - 1) is None
    assert archive.as_of(SANDBOX, RULES.fingerprint, later - 1) == built[-1]
    assert archive.as_of(SANDBOX, RULES.fingerprint, later) == again[-1]
    assert archive.as_of(SANDBOX, EVERYTHING.fingerprint, later) is None
    assert len(archive.history(SANDBOX, RULES.fingerprint)) == 10


def test_membership_over_time(lake, tmp_path):
    """Training reads who was in at each moment: as of the weeks themselves, nobody before the first is known."""
    _, built = _built(lake, tmp_path)
    times = np.array([WEEKS[0], *(week + BUILD_DELAY_MS for week in WEEKS)])

    assert was_included(built, perpetual("LEFT"), times).tolist() == [False, True, True, True, False, False]
    assert was_included(built, perpetual("NEW"), times).tolist() == [False] * 5 + [True]
    assert members_between(built, WEEKS[0], WEEKS[1]) == [perpetual("LEFT"), perpetual("STAYS")]
    assert members_between(built, WEEKS[-1] + DAY_MS, WEEKS[-1] + WEEK_MS) == [perpetual("NEW"), perpetual("STAYS")]
    table = membership_table(built)
    rows = [row for row in table.to_pylist() if row["symbol"] == perpetual("LEFT")]
    assert [row["included"] for row in rows] == [True, True, True, False, False]
    assert [row["rank"] for row in rows] == [1, 1, 1, 0, 0]
    assert len(membership_table([])) == 0


def test_a_symbol_no_longer_named_is_out(lake, tmp_path):
    """Where a later universe does not know a symbol at all, the membership table says that it is out."""
    _, built = _built(lake, tmp_path)
    gone = built[4].universe
    shortened = type(gone)(gone.at_ms, tuple(one for one in gone.verdicts if one.symbol != perpetual("STAYS")))
    last = UniverseArchive(tmp_path / "other").save(SANDBOX, RULES, shortened, NOW_MS)
    assert [
        row["included"] for row in membership_table([built[3], last]).to_pylist() if row["symbol"] == perpetual("STAYS")
    ] == [True, False]


def test_reading_needs_neither_warehouse_nor_lake(lake, tmp_path):
    """The worker can read the universe of a past moment: no DuckDB and no PyArrow is loaded for it."""
    archive, built = _built(lake, tmp_path)
    code = (
        "import sys; from pathlib import Path; from feature_store.candle import Timeframe\n"
        "from feature_store.universe.archive import Market, UniverseArchive\n"
        "from feature_store.universe.policy import Rules; from feature_store.universe.selection import refused_now\n"
        "import msgspec; rules = msgspec.json.decode(sys.argv[2], type=Rules).fingerprint\n"
        "found = UniverseArchive(Path(sys.argv[1])).as_of(Market('sandbox', Timeframe.H1), rules, int(sys.argv[3]))\n"
        "heavy = {'duckdb', 'pyarrow', 'pandas', 'polars', 'ccxt'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(','.join(found.universe.symbols))"
    )
    said = python(code, str(archive.root), msgspec.json.encode(RULES).decode(), str(WEEKS[0] + BUILD_DELAY_MS))

    assert said.strip() == ",".join(built[0].universe.symbols)


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema":2,"revisions":[]}', b"[]"], ids=repr)
def test_a_damaged_file_is_named(lake, tmp_path, content):
    """A file that is not a whole universe is refused by name, read or written over; nothing is made up."""
    archive, _ = _built(lake, tmp_path)
    path = max(archive.root.rglob("*.json"))
    path.write_bytes(content)

    with pytest.raises(CorruptFileError, match=path.name):
        archive.as_of(SANDBOX, RULES.fingerprint, NOW_MS + WEEK_MS)
    with pytest.raises(CorruptFileError, match=path.name):
        build_weeks(lake, archive, SANDBOX, RULES, NOW_MS, again=True)
    assert path.read_bytes() == content


def _build(root, now_ms):
    lake, archive = CandleLake(root / "lake"), UniverseArchive(root / "universe")
    build_weeks(lake, archive, SANDBOX, RULES, now_ms, again=True)


def test_builders_at_once_lose_nothing(lake, tmp_path):
    """Several processes that build the same weeks at once leave one revision of each, whole."""
    context = multiprocessing.get_context("spawn")
    builders = [context.Process(target=_build, args=(tmp_path, NOW_MS + one)) for one in range(3)]
    for one in builders:
        one.start()
    for one in builders:
        one.join(100)

    assert [one.exitcode for one in builders] == [0, 0, 0]
    stored = UniverseArchive(tmp_path / "universe").history(SANDBOX, RULES.fingerprint)
    assert [one.revision for one in stored] == [0] * len(WEEKS)


def test_two_markets_at_once_are_refused(lake):
    """Facts are of one venue and timeframe."""
    with pytest.raises(BadInputError, match="one venue and timeframe"):
        list(facts_at(lake, [hourly("STAYS"), Series("sandbox", perpetual("STAYS"), Timeframe.M5)], WEEKS))


def test_due_weeks():
    """A week is due from its Monday on; none until something can be known."""
    assert due_weeks(MONDAY_MS - 1, MONDAY_MS + WEEK_MS) == [MONDAY_MS, MONDAY_MS + WEEK_MS]
    assert due_weeks(MONDAY_MS - 1, MONDAY_MS + WEEK_MS - 1) == [MONDAY_MS]
    assert due_weeks(MONDAY_MS, MONDAY_MS + WEEK_MS - 1) == []


@pytest.mark.parametrize("timeframe", [Timeframe.M5, Timeframe.H4, Timeframe.D1])
def test_a_week_is_made_with_the_first_candle_that_closes_in_it(tmp_path, timeframe):
    """Candles of any length: the newest one that closed before Monday is not enough, the one that closes then is."""
    lake, step = CandleLake(tmp_path / "lake"), timeframe.milliseconds
    series, market_ = Series("sandbox", "BTC/USDT:USDT", timeframe), Market("sandbox", timeframe)
    times = np.arange(MONDAY_MS - 10 * DAY_MS, MONDAY_MS, step, dtype=np.int64)
    block = CandleBlock(times, np.tile([1.0, 1.0, 1.0, 1.0, 1.0], (len(times), 1)))

    def made(until: int) -> list[int]:
        lake.append(series, block[:until])
        archive = UniverseArchive(tmp_path / "universe")
        done = build_weeks(lake, archive, market_, EVERYTHING, seen_ms(lake, market_))
        return [one.universe.at_ms for one in done]

    assert made(len(block) - 1) == [MONDAY_MS - WEEK_MS]
    assert made(len(block)) == [MONDAY_MS]


@pytest.mark.needs_market_data
def test_recorded_symbol_that_left(tmp_path):
    """CVC traded enough in November 2022 and stopped in December: it is in the universe of then, and not of later."""
    lake = CandleLake(tmp_path / "lake")
    for recording, block in read_file(recorded("binance_spot_5m_2022-10_2023-03_broad.parquet")):
        if recording.symbol in ("BTCUSDT", "CVCUSDT", "SUPERUSDT"):
            lake.append(Series("binance", unified_name("binance", recording.symbol)[1], Timeframe.M5), block)
    spot = Market("binance", Timeframe.M5)
    rules = Rules(UniversePolicy(mode=Mode.ALL), read_rules().lists)
    built = build_weeks(lake, UniverseArchive(tmp_path / "universe"), spot, rules, 1_673_000_000_000)
    told = {one.universe.at_ms: one.universe.verdict("CVC/USDT") for one in built}
    november, december = 1_668_384_000_000, 1_670_803_200_000

    assert told[november].is_included
    assert told[december].refusal is Refusal.STALE
    assert told[december].facts.last_close_ms == told[max(told)].facts.last_close_ms < december
    assert "BTC/USDT" in built[-1].universe.symbols
