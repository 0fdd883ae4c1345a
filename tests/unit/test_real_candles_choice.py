"""Which recording the proof on real candles replays: whatever a folder holds, and always the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.prove.real_candles import recording_in

HEAD = "exchange,symbol,timeframe,ts,open,high,low,close,volume"


def record(path: Path, symbols: int, timeframe: str = "5m") -> None:
    """Write one candle of each of so many symbols."""
    rows = [f"somewhere,{path.stem[:1].upper()}{chr(65 + n)}USDT,{timeframe},0,1,1,1,1,1" for n in range(symbols)]
    path.write_text("\n".join([HEAD, *rows]) + "\n")


@pytest.mark.parametrize(("wanted", "chosen", "symbols"), [(3, "b.csv", 4), (5, "a.csv", 6), (9, "", 12)])
def test_the_smallest_that_is_enough_is_taken(tmp_path, wanted, chosen, symbols):
    """Any file name will do; candles too coarse to trade, other tables and other files do not count."""
    for name, count in {"c": 2, "a": 6, "b": 4}.items():
        record(tmp_path / f"{name}.csv", count)
    record(tmp_path / "hours.csv", 5, "1h")
    (tmp_path / "orders.csv").write_text("id,price\n1,2\n")
    (tmp_path / "README.md").write_text("What this is.\n")

    assert recording_in(tmp_path, wanted) == (tmp_path / chosen, symbols)


def test_one_symbol_to_a_file_is_one_recording(tmp_path):
    """Where no file has enough symbols, the folder is replayed as a whole."""
    for name in "abc":
        record(tmp_path / f"{name}.csv", 1)

    assert recording_in(tmp_path, 3) == (tmp_path, 3)


def test_among_equals_the_first_by_name_is_taken(tmp_path):
    """Two recordings of one size are no matter of chance."""
    for name in "zyx":
        record(tmp_path / f"{name}.csv", 2)

    assert recording_in(tmp_path, 2) == (tmp_path / "x.csv", 2)


def test_less_than_wanted_is_better_than_nothing(tmp_path):
    """The most symbols that there are, from one file where it is all there is; nothing usable is told as None."""
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    assert recording_in(tmp_path, 12) is None

    record(tmp_path / "few.csv", 2)
    assert recording_in(tmp_path, 12) == (tmp_path / "few.csv", 2)
