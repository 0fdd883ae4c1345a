"""The picture and the printed report of what is stored: every gap shown, and why it is one."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from feature_store.absences import Span
from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.standard import qualities
from flows import coverage_map
from flows.coverage_map import heat_picture, part_classes
from inference.cli import run
from tests.feature_support import STEP, T0, market, without

NONE, FEW, MOST, NEARLY_ALL, OUTAGE, ALL = range(6)
PARTS = 10
SPAN = Span(T0, T0 + 1000 * STEP)
WHOLE = market(1000, flat=0)


def classes_of(*cuts: slice) -> list[int]:
    """Return the classes of a series with cuts beside one that lacks only candles 700 to 750."""
    ours = Series("sandbox", "A/USDT:USDT", Timeframe.M5)
    blocks = {ours: without(WHOLE, np.r_[700:750, *cuts])}
    blocks[Series("sandbox", "B/USDT:USDT", Timeframe.M5)] = without(WHOLE, slice(700, 750))
    return part_classes(qualities(blocks)[ours], blocks[ours], SPAN, PARTS).tolist()


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ((), [ALL] * 7 + [OUTAGE, ALL, ALL]),
        ((slice(100, 101),), [ALL, NEARLY_ALL, *[ALL] * 5, OUTAGE, ALL, ALL]),
        ((slice(100, 115), slice(290, 300)), [ALL, MOST, MOST, *[ALL] * 4, OUTAGE, ALL, ALL]),
        ((slice(180, 350),), [ALL, MOST, NONE, FEW, *[ALL] * 3, OUTAGE, ALL, ALL]),
        ((slice(760, 770),), [ALL] * 7 + [FEW, ALL, ALL]),
        ((slice(0, 100),), [NONE] + [ALL] * 6 + [OUTAGE, ALL, ALL]),
    ],
)
def test_each_part_says_how_much_is_there_and_why_not(cuts, expected):
    """All, from 99 %, from 80 %, fewer, none; and grey only where nothing but an outage is absent."""
    assert classes_of(*cuts) == expected


@pytest.mark.parametrize(("count", "timeframe"), [(1, Timeframe.M5), (40, Timeframe.M5), (3, Timeframe.D1)])
def test_the_picture_is_one(count, timeframe):
    """One series or many, five minutes or a day: a PNG that opens, with more than one colour, of bounded size."""
    blocks = {}
    for number in range(count):
        block = market(60, timeframe=timeframe, start_ms=T0 - T0 % timeframe.milliseconds, seed=number, flat=0)
        blocks[Series("sandbox", f"S{number}/USDT:USDT", timeframe)] = without(block, slice(20, 30))
    first = T0 - T0 % timeframe.milliseconds
    drawn = heat_picture(qualities(blocks), blocks, Span(first, first + 60 * timeframe.milliseconds))
    with Image.open(io.BytesIO(drawn)) as opened:
        opened.verify()
        assert opened.format == "PNG"
        assert opened.size[0] == 1100
    assert len(drawn) < 300_000


def test_of_too_many_series_the_worst_are_drawn(monkeypatch):
    """A picture that would be too high shows those of which least is stored, and says so."""
    monkeypatch.setattr(coverage_map, "_MOST_ROWS", 2)
    blocks = {Series("sandbox", f"S{n}/USDT:USDT", Timeframe.M5): WHOLE for n in range(4)}
    blocks[Series("sandbox", "S2/USDT:USDT", Timeframe.M5)] = without(WHOLE, slice(100, 500))
    few, many = heat_picture(qualities(blocks), blocks, SPAN), heat_picture({}, {}, SPAN)
    for drawn in (few, many):
        with Image.open(io.BytesIO(drawn)) as opened:
            assert opened.size[1] < 250


def test_the_report_is_printed_without_a_stack(tmp_path, capsys, monkeypatch):
    """`qtctl ingest --report` tells of the stored candles alone, as a table or as JSON, and keeps the picture."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    for name in ("QT_VENUE", "QT_TIMEFRAME", "QT_SYMBOLS", "QT_DAYS"):
        monkeypatch.delenv(name, raising=False)
    assert run(["ingest", "--report"]) == 2
    assert "run 'qtctl ingest' first" in capsys.readouterr().err
    lake = CandleLake(tmp_path / "lake")
    lake.append(Series("sandbox", "A/USDT:USDT", Timeframe.M5), without(WHOLE, slice(100, 400)))
    lake.append(Series("sandbox", "B/USDT:USDT", Timeframe.M5), WHOLE)
    assert run(["ingest", "--report", "--json"]) == 0
    rows = {row["symbol"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["A/USDT:USDT"]["no trade or unknown"] == 300
    assert rows["B/USDT:USDT"]["verdict"] == "sound"
    monkeypatch.setenv("COLUMNS", "300")
    assert run(["ingest", "--report"]) == 0
    told = capsys.readouterr().out
    assert "lacks 300 of 1000 candles" in " ".join(told.split())
    assert str(tmp_path / "reports" / "coverage-sandbox-5m.png") in told.replace("\n", "")
    assert (tmp_path / "reports" / "coverage-sandbox-5m.png").read_bytes().startswith(b"\x89PNG")
