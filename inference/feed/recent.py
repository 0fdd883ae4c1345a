"""The newest candles that features were made from: what a venue says of them later is held against these."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, CandleBlock, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.features.definition import TAIL
from feature_store.files import replace_bytes
from inference.feed.plausible import sift

REMEMBERED = 499
"""Candles that are remembered of each symbol: as many as the venue tells at its smallest weight."""

_REMEDY = "Remove it: candles are read from the venue again."


class RecentCandles:
    """
    What was taken in of each symbol lately, in order; pure, and 24 kB for each symbol.

    Candles that no market has made are remembered as they came, since the venue may tell or correct them again, and
    known to be none: `refused` has them, `plausible` leaves them out.
    """

    def __init__(self, timeframe: Timeframe) -> None:
        self._step = timeframe.milliseconds
        self._rings: dict[str, _Ring] = {}
        self._refused: dict[str, dict[int, str]] = {}

    def add(self, symbol: str, block: CandleBlock) -> None:
        """Remember candles that are newer than all before; the oldest are forgotten."""
        refused, before = self._refused.get(symbol, {}), self.plausible(symbol)
        last = before.last_open_time_ms
        in_a_row = sum(last is None or opened > last for opened in refused)
        refused |= sift(before.values[-TAIL:], block, refused_before=in_a_row).refused
        ring = self._rings.setdefault(symbol, _Ring())
        ring.add(block.open_time_ms, block.values)
        if refused:
            held = set(ring.block().open_time_ms.tolist())
            self._refused[symbol] = {opened: why for opened, why in refused.items() if opened in held}

    def refused(self, symbol: str) -> Mapping[int, str]:
        """Return of each remembered candle that no market has made, by open time in UTC ms, why it is none."""
        return dict(self._refused.get(symbol, {}))

    def plausible(self, symbol: str) -> CandleBlock:
        """Return what is remembered of a symbol, oldest first, without the candles that no market has made."""
        block, refused = self.block(symbol), self._refused.get(symbol)
        if not refused:
            return block
        taken = ~np.isin(block.open_time_ms, list(refused))
        return CandleBlock(block.open_time_ms[taken], block.values[taken])

    def last_close(self, symbol: str) -> float | None:
        """Return the newest close that a market could have made, None where none is remembered."""
        ring, refused = self._rings.get(symbol), self._refused.get(symbol, {})
        return None if ring is None else ring.last_close(refused)

    def block(self, symbol: str) -> CandleBlock:
        """Return what is remembered of a symbol, oldest first."""
        ring = self._rings.get(symbol)
        return CandleBlock.empty() if ring is None else ring.block()

    def newest(self, symbol: str, count: int, *, last_open_ms: int) -> CandleBlock | None:
        """Return so many candles in a row, the last of which opened at `last_open_ms`; None where it is not so."""
        block = self.block(symbol)[-count:] if count > 0 else CandleBlock.empty()
        is_whole = len(block) == count > 0 and block.last_open_time_ms == last_open_ms
        return block if is_whole and block.first_open_time_ms == last_open_ms - (count - 1) * self._step else None

    def holes(self, symbol: str) -> tuple[int, ...]:
        """Return the open times among the remembered candles at which there was none."""
        ring = self._rings.get(symbol)
        if ring is None or ring.is_whole(self._step):
            return ()
        times = ring.block().open_time_ms
        return tuple(np.setdiff1d(np.arange(times[0], times[-1], self._step), times).tolist())

    def changes(self, symbol: str, block: CandleBlock) -> CandleBlock:
        """Return those candles, within the time that is remembered, of which none or another one was taken in."""
        known = self.block(symbol)
        first, last = known.first_open_time_ms, known.last_open_time_ms
        if first is None or last is None:
            return CandleBlock.empty()
        block = block.since(first).until(last + 1)
        place = np.searchsorted(known.open_time_ms, block.open_time_ms)
        same = known.open_time_ms[place] == block.open_time_ms
        same &= (known.values[place] == block.values).all(axis=1)
        return CandleBlock(block.open_time_ms[~same], block.values[~same])

    def replace(self, symbol: str, changed: CandleBlock) -> None:
        """Remember candles that came late, or in place of others."""
        known = self.block(symbol)
        kept = ~np.isin(known.open_time_ms, changed.open_time_ms)
        times = np.concatenate([known.open_time_ms[kept], changed.open_time_ms])
        values, order = np.concatenate([known.values[kept], changed.values]), np.argsort(times)
        self.forget(symbol)
        self.add(symbol, CandleBlock(times[order], values[order]))

    def forget(self, symbol: str) -> None:
        """Remember nothing of a symbol."""
        self._rings.pop(symbol, None)
        self._refused.pop(symbol, None)

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of which something is remembered."""
        return tuple(symbol for symbol, ring in self._rings.items() if ring.seen)


class _Ring:
    """The n-th candle stands in row n % 499, so that nothing is moved."""

    def __init__(self) -> None:
        self.seen = 0
        self._times = np.zeros(REMEMBERED, np.int64)
        self._values = np.zeros((REMEMBERED, 5))

    def add(self, times: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        kept = min(len(times), REMEMBERED)
        rows = (self.seen + np.arange(len(times) - kept, len(times))) % REMEMBERED
        self._times[rows], self._values[rows] = times[len(times) - kept :], values[len(times) - kept :]
        self.seen += len(times)

    def is_whole(self, step: int) -> bool:
        held = min(self.seen, REMEMBERED)
        if held == 0:
            return True
        last, first = self._times[(self.seen - 1) % REMEMBERED], self._times[(self.seen - held) % REMEMBERED]
        return int(last - first) // step + 1 == held

    def last_close(self, without: Collection[int]) -> float | None:
        for place in range(self.seen - 1, max(self.seen - REMEMBERED, 0) - 1, -1):
            row = place % REMEMBERED
            if int(self._times[row]) not in without:
                return float(self._values[row, CLOSE])
        return None

    def block(self) -> CandleBlock:
        rows = np.arange(max(self.seen - REMEMBERED, 0), self.seen) % REMEMBERED
        return CandleBlock(self._times[rows], self._values[rows])


def write_recent(path: Path, recent: RecentCandles) -> None:
    """Write what is remembered; the file is replaced as a whole."""
    blocks = {symbol: recent.block(symbol) for symbol in recent.symbols()}
    whole = CandleBlock.empty().concat(*blocks.values())
    buffer = io.BytesIO()
    np.savez(
        buffer,
        symbols=np.array(list(blocks), np.str_),
        counts=np.array([len(block) for block in blocks.values()], np.int64),
        open_time_ms=whole.open_time_ms,
        values=whole.values,
    )
    replace_bytes(path, buffer.getvalue())


def read_recent(path: Path) -> Mapping[str, CandleBlock]:
    """
    Return what `write_recent` wrote, by symbol; nothing where there is no file.

    Raises:
        CorruptFileError: The file is damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            symbols, counts = stored["symbols"].tolist(), stored["counts"]
            whole = CandleBlock(stored["open_time_ms"], stored["values"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, BadInputError) as error:
        raise CorruptFileError(path, f"it cannot be read ({error})", _REMEDY) from error
    ends = np.cumsum(counts).tolist()
    if len(symbols) != len(ends) or (ends or [0])[-1] != len(whole):
        raise CorruptFileError(path, "its parts do not fit together", _REMEDY)
    begins = [0, *ends][: len(ends)]
    return {symbol: whole[begin:end] for symbol, begin, end in zip(symbols, begins, ends, strict=True)}
