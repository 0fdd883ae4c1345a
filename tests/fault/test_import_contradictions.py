"""Files that say other things than the lake, or are named as none should be: refused, and how to go on is said."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.partitions import series_folder
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import open_source
from inference.cli import run
from tests.import_support import (
    DAY,
    JAN_2024,
    NOW_MS,
    archive,
    days,
    json_file,
    klines,
    moved,
    recording,
    refused,
)

SPOT = Series("binance", "BTC/USDT", Timeframe.M5)
GOOD = days(31)


@pytest.fixture
def lake(tmp_path):
    """Return a lake that holds a month already."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(SPOT, GOOD)
    return lake


HOSTILE = {
    "a path for a venue": ("x/../../../../../escaped", "BTC/USDT", "a venue in small letters"),
    "the folder above": ("..", "BTC/USDT", "a venue in small letters"),
    "a venue in capitals": ("Binance", "BTC/USDT", "a venue in small letters"),
    "a path for a symbol": ("kraken", "../../../../escaped/USDT", "a symbol as BTC/USDT"),
    "a symbol without a base": ("kraken", "/USDT", "a symbol as BTC/USDT"),
    "a symbol without a settlement": ("kraken", "BTC/USDT:", "a symbol as BTC/USDT"),
    "a spot symbol of perpetuals": ("binance_usdm", "BTC/USDT", "trades perpetuals"),
    "a spot symbol of the sandbox": ("sandbox", "BTC/USDT", "trades perpetuals"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_names_that_lead_out_of_the_lake_are_refused(tmp_path, lake, case):
    """A venue or symbol that is a path, or none at all, is refused, and nothing is written anywhere."""
    venue, symbol, reason = HOSTILE[case]
    recording(tmp_path / "files/hostile.csv", (venue, symbol, days(2)))
    before = sorted(tmp_path.rglob("*"))
    assert reason in refused(lake, tmp_path / "files")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("venue", ["x/../../../../../escaped", "/tmp/escaped", "..", ""])
def test_the_lake_itself_writes_nothing_outside(tmp_path, lake, venue):
    """Whatever door candles come through, a series whose name is a path is refused by the lake."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInputError, match="a venue"):
        lake.append(Series(venue, "BTC/USDT", Timeframe.M5), days(1))
    assert sorted(tmp_path.rglob("*")) == before
    if "/" in venue:
        with pytest.raises(BadInputError, match="a venue"):
            series_folder(lake.root, Series(venue, "BTC/USDT", Timeframe.M5))


def test_names_of_all_venues_are_kept(tmp_path):
    """Real names go through, also in other scripts than ours and with a date of delivery."""
    lake = CandleLake(tmp_path / "lake")
    for venue, symbol in (("binance_coinm", "BTC/USD:BTC-240628"), ("kucoin", "1000币/USDT"), ("x1", "Ä %2F?&#=+/B:C")):
        assert lake.append(Series(venue, symbol, Timeframe.M5), days(1)) == DAY


def dearer(block: CandleBlock, *, rows: slice = slice(None)) -> CandleBlock:
    """Return candles of which some cost a tenth more."""
    values = block.values.copy()
    values[rows, :4] *= 1.1
    return CandleBlock(block.open_time_ms, values)


def test_a_file_that_contradicts_the_lake_is_refused(tmp_path, lake):
    """Other prices for stored candles, in a run of their own: refused with the first of them; --repair takes them."""
    recording(tmp_path / "b.csv", ("binance", "BTC/USDT", dearer(days(31), rows=slice(100, 400))))
    reason = refused(lake, tmp_path / "b.csv")
    assert "300 candles differ" in reason
    assert f"2024-01-01T08:20:00.000 UTC ({JAN_2024 + 100 * 300_000} ms)" in reason
    assert "--repair imports the file as corrections" in reason

    source = open_source(str(tmp_path / "b.csv"), selection=Selection(), now_ms=NOW_MS, days=3)
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS, again=True)
    assert (done.refused, done.appended, done.corrections) == ((), 300, 300)
    assert lake.coverage(SPOT).corrections == 300
    assert lake.read(SPOT, as_of_ms=NOW_MS).equals(GOOD), "What was known before is gone"


def test_two_files_that_disagree_stay_refused_in_a_second_run(tmp_path):
    """The second of two files is refused again when the first one is known: not taken as a correction of it."""
    lake = CandleLake(tmp_path / "new")
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", GOOD))
    recording(tmp_path / "files/b.csv", ("binance", "BTC/USDT", dearer(GOOD)))
    for known in (0, 1):
        source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
        done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
        assert (done.known, [one.part.endswith("b.csv") for one in done.refused]) == (known, [True])
    assert lake.read(SPOT).equals(GOOD)
    assert lake.coverage(SPOT).corrections == 0


def at_close(block: CandleBlock, volume: float) -> CandleBlock:
    """Return candles of which the last one was written before it had closed, when so much had been traded."""
    values = block.values.copy()
    values[-1] = [*[values[-1, 0]] * 4, values[-1, 4] * volume]
    return CandleBlock(block.open_time_ms, values)


def other_close(block: CandleBlock) -> CandleBlock:
    """Return candles of which the last one closes elsewhere, at the same range and volume."""
    values = block.values.copy()
    values[-1, 3] = values[-1, 2] if values[-1, 3] != values[-1, 2] else values[-1, 1]
    return CandleBlock(block.open_time_ms, values)


WHOLE = GOOD[:100]
HELD = {
    "two that repeat each other": (0, WHOLE[:60], WHOLE[40:]),
    "one that ends in an open candle": (0, at_close(WHOLE[:60], 0.5), WHOLE[40:]),
    "two that end in one open candle": (0, at_close(WHOLE[:60], 0.3), at_close(WHOLE[20:60], 0.6), WHOLE[40:]),
    "an open candle far behind the newest ones": (0, at_close(WHOLE[:19], 0.5), WHOLE[60:], WHOLE[:60]),
    "one open candle, and nothing else": (0, at_close(WHOLE[59:60], 0.5), WHOLE),
    "other closes": (3, WHOLE[:10], dearer(WHOLE[:10])),
    "another close of the last candle": (3, WHOLE[:10], other_close(WHOLE[:10])),
    "an open candle that the other file goes on behind": (3, dearer(WHOLE[:60], rows=slice(59, 60)), WHOLE[40:]),
    "a close between an open candle and its end": (
        3,
        at_close(WHOLE[:60], 0.5),
        CandleBlock(
            WHOLE.open_time_ms, np.vstack((WHOLE.values[:59], at_close(WHOLE[:60], 0.7).values[59:], WHOLE.values[60:]))
        ),
        WHOLE[30:],
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_files_agree_or_not_whatever_their_order_and_the_number_of_runs(tmp_path, capsys, monkeypatch, case):
    """
    Repeating the command, the names of files, and which came first, decide neither the exit status nor the candles.

    Of files that contradict each other the first one stays, and the others are refused again and again.
    """
    status, *blocks = HELD[case]
    assert all(block.values[-1, 4] > 0 for block in blocks), "Where nothing traded, no look is shorter"
    for number, order in enumerate(itertools.permutations(range(len(blocks)))):
        for arriving in (False, True):
            home, files = (tmp_path / f"{name}{number}{arriving}" for name in ("home", "files"))
            monkeypatch.setenv("QUANTUM_HOME", str(home))
            # Names in the order of arrival, or against it: files that came later may be read earlier.
            for step, which in enumerate(order):
                name = f"{len(order) - step if arriving else step}.csv"
                recording(files / name, ("binance", "BTC/USDT", blocks[which]))
                if arriving:
                    run(["ingest", "--from", str(files)])
            lake = CandleLake(home / "lake")
            assert run(["ingest", "--from", str(files)]) == status, order
            once = lake.read(SPOT)
            assert run(["ingest", "--from", str(files)]) == status, order
            assert lake.read(SPOT).equals(once), order
            if status == 0:
                assert once.equals(WHOLE), order
            else:
                first = blocks[order[0]]
                # The last one may have been open: the first file itself leaves it to others.
                inner = lake.read(SPOT, int(first.open_time_ms[0]), int(first.open_time_ms[-1]))
                assert inner.equals(first[:-1]), order


def test_the_file_that_is_kept_of_two_is_taken(tmp_path):
    """'Keep one of the two files' helps: once the other one is gone, the newest candles are corrected by this one."""
    lake = CandleLake(tmp_path / "new")
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", WHOLE[:10]))
    recording(tmp_path / "files/b.csv", ("binance", "BTC/USDT", dearer(WHOLE[:10])))
    source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
    assert "keep one" in import_candles(lake, source, Selection(), now_ms=NOW_MS).refused[0].reason
    (tmp_path / "files/a.csv").unlink()
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.refused, done.corrections) == ((), 10)
    assert lake.read(SPOT).equals(dearer(WHOLE[:10]))


def test_a_file_that_grows_beside_others_completes_its_last_candle(tmp_path):
    """What a file said last may have been open, also where another file has brought newer candles by then."""
    lake = CandleLake(tmp_path / "new")
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", at_close(WHOLE[:19], 0.5)))
    recording(tmp_path / "files/b.csv", ("binance", "BTC/USDT", WHOLE[60:]))
    source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
    import_candles(lake, source, Selection(), now_ms=NOW_MS)
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", WHOLE[:60]))
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.known, done.refused, done.appended, done.corrections) == (1, (), 42, 1)
    assert lake.read(SPOT).equals(WHOLE)


def test_repair_judges_files_by_those_that_it_reads(tmp_path):
    """With --repair too an open candle gives way to a closed one, and the second of two that disagree is refused."""
    lake = CandleLake(tmp_path / "new")
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", WHOLE))
    recording(tmp_path / "files/b.csv", ("binance", "BTC/USDT", at_close(WHOLE[:60], 0.5)))
    recording(tmp_path / "files/c.csv", ("binance", "BTC/USDT", dearer(WHOLE)))
    source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
    for again in (False, True):
        done = import_candles(lake, source, Selection(), now_ms=NOW_MS, again=again)
        assert [one.part.endswith("c.csv") for one in done.refused] == [True]
        assert lake.read(SPOT).equals(WHOLE)
        assert done.corrections == 0


def test_notes_of_an_earlier_version_are_read(tmp_path):
    """A ledger that does not say from when to when its files reach still knows them and their series."""
    lake = CandleLake(tmp_path / "new")
    recording(tmp_path / "files/a.csv", ("binance", "BTC/USDT", WHOLE))
    source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
    import_candles(lake, source, Selection(), now_ms=NOW_MS)
    ledger = lake.root / "imports.jsonl"
    entry = json.loads(ledger.read_text())
    assert entry["series"] == [["binance", "BTC/USDT", "5m", *map(int, WHOLE.open_time_ms[[0, -1]])]]
    entry["series"] = [row[:3] for row in entry["series"]]
    ledger.write_text(json.dumps(entry))
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.known, done.known_series) == (1, (SPOT,))


@pytest.mark.parametrize(
    "step",
    ["5m", "15m", "1h", "4h", "1d"],
)
def test_candles_of_a_longer_timeframe_are_refused(tmp_path, lake, step):
    """A whole file whose candles are further apart than it says is of another timeframe, and says of which."""
    long = Timeframe.parse(step)
    block = CandleBlock(JAN_2024 + np.arange(12) * long.milliseconds, GOOD.values[:12])
    recording(tmp_path / "long.csv", ("kraken", "BTC/USDT", block), timeframe="1m")
    assert f"Say --timeframe {step}" in refused(lake, tmp_path / "long.csv")
    recording(tmp_path / "long.csv", ("kraken", "BTC/USDT", block[:10]), timeframe="1m")
    source = open_source(str(tmp_path / "long.csv"), selection=Selection(), now_ms=NOW_MS, days=3)
    assert import_candles(lake, source, Selection(), now_ms=NOW_MS).appended == 10, "So few may be chance"


def test_minutes_with_holes_are_minutes(tmp_path, lake):
    """Absent candles make no longer timeframe: one step that is no multiple is enough."""
    times = JAN_2024 + np.append(np.arange(20) * 300_000, 20 * 300_000 + 60_000)
    recording(tmp_path / "m.csv", ("kraken", "BTC/USDT", CandleBlock(times, GOOD.values[:21])), timeframe="1m")
    source = open_source(str(tmp_path / "m.csv"), selection=Selection(), now_ms=NOW_MS, days=3)
    assert import_candles(lake, source, Selection(), now_ms=NOW_MS).appended == 21


@pytest.mark.parametrize(
    ("name", "kind", "layout"),
    [
        ("good.csv", "freqtrade", "user_data/data/binance/BTC_USDT-5m.feather"),
        ("good.csv", "binance-archive", "data/spot/monthly/klines"),
        ("notes.json", None, "BTCUSDT_5m.json"),
        ("notes.zip", None, "with its .CHECKSUM"),
    ],
)
def test_files_of_no_layout_teach_it(tmp_path, lake, name, kind, layout):
    """Where no file is called as its kind expects, the error shows how files of that kind are called."""
    (tmp_path / name).write_text("x")
    source = open_source(str(tmp_path / name), kind, selection=Selection(), now_ms=NOW_MS, days=3)
    with pytest.raises(BadInputError, match="Nothing was imported") as error:
        import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert layout in str(error.value)


def test_files_that_do_not_say_their_venue_ask_for_it(tmp_path, lake):
    """Short names of files and archives outside of their tree are refused by name, with the option that helps."""
    json_file(tmp_path / "price_history/BTCUSDT_5m.json", days(1))
    assert "say it with --venue" in refused(lake, tmp_path / "price_history")
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01-02", klines(days(1)))
    flat = moved(path, tmp_path / "flat")
    assert "say it with --venue" in refused(lake, flat.parent)
    assert "say it with --venue" in refused(lake, flat)


def test_prices_that_nobody_traded_at_are_not_taken_for_candles(tmp_path, lake):
    """Mark prices are called as candles are, in another folder: no venue makes candles of them."""
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01-02", klines(days(1)))
    moved(path, tmp_path / "data/futures/um/daily/markPriceKlines/BTCUSDT/5m")
    moved(path, tmp_path / "data/futures/cm/daily/klines/BTCUSDT/5m")
    chosen = Selection(venue="binanceusdm")
    source = open_source(str(tmp_path / "data"), selection=chosen, now_ms=NOW_MS, days=3)
    with pytest.raises(BadInputError, match="Nothing was imported"):
        import_candles(lake, source, chosen, now_ms=NOW_MS)
