"""Series of which other candles are known than their features were made from: rebuilt before they are decided on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError, QuantumError
from feature_store.features.live import LiveFeatures
from inference.feed.plausible import sift
from inference.telemetry.logs import logger

_log = logger("rebuilding")

Rows = npt.NDArray[np.float64]
History = Callable[[str], Awaitable[CandleBlock]]
"""Reads the closed candles that a symbol's features are made from; fails with a QuantumError."""


def rebuilt(features: LiveFeatures, symbol: str, history: CandleBlock) -> Rows | None:
    """
    Begin a symbol afresh from candles as they are known now, as far as its features had come; return the new ones.

    None, with nothing changed, where the candles do not reach so far.

    Raises:
        BadInputError: The candles hold an impossible one; nothing was changed.
    """
    last = features.last_open_time_ms(symbol)
    known = history.last_open_time_ms
    if last is None or known is None or known < last:
        return None
    return features.rebuild(symbol, history.until(last + 1))


@dataclass(frozen=True, slots=True)
class Behind:
    """Series that are stale, the candles that have been read to rebuild them, and which of them that was done for."""

    stale: Mapping[str, str] = field(default_factory=dict)
    histories: Mapping[str, CandleBlock] = field(default_factory=dict)
    rebuilt: dict[str, int] = field(default_factory=dict)

    def rebuild(self, features: LiveFeatures, keep: Callable[[str, Rows, CandleBlock], None]) -> Mapping[str, str]:
        """Rebuild what candles are there for and hand on its rows; return what stays stale, and why."""
        for symbol, told in self.histories.items():
            history = sift(np.empty((0, 5)), told).block
            try:
                computed = rebuilt(features, symbol, history)
            except BadInputError as error:
                _log.warning("history_unusable", symbol=symbol, error=str(error)[:300])
                continue
            if computed is not None:
                keep(symbol, computed, history[: len(computed)])
                self.rebuilt[symbol] = len(computed)
        return {symbol: why for symbol, why in self.stale.items() if symbol not in self.rebuilt}


class Rebuilds:
    """
    Which series are stale, and the candles that are being read to rebuild them.

    A stale series is not decided on. Its candles are read beside the loop; the worker takes them between two batches.
    """

    def __init__(self, history: History, *, note: Callable[[str, Mapping[str, str]], None]) -> None:
        self._history = history
        self._note = note
        self._why: dict[str, str] = {}
        self._reads: dict[str, asyncio.Task[CandleBlock | None]] = {}

    @property
    def stale(self) -> Mapping[str, str]:
        """The series that wait to be rebuilt, and why."""
        return dict(self._why)

    def behind(self, changed: Mapping[str, str]) -> Behind:
        """Return what is stale, what of candles `changed` say included, with the candles that have been read."""
        for symbol, why in changed.items():
            self.mark(symbol, why)
        return Behind(self.stale, self.arrived())

    def settle(self, behind: Behind) -> None:
        """Take note of what was rebuilt, and read candles again for what was not."""
        for symbol, candles in behind.rebuilt.items():
            self.done(symbol, candles)
        self.ask()

    def mark(self, symbol: str, why: str) -> None:
        """Hold a series to be stale, and read its candles; those that were read before may lack what has changed."""
        self._why[symbol] = why
        self._note("market.candles_changed", {"symbol": symbol, "found": why})
        if (read := self._reads.pop(symbol, None)) is not None:
            read.cancel()
        self.ask()

    def arrived(self) -> dict[str, CandleBlock]:
        """Return the candles that have been read, each once."""
        found = {}
        for symbol in [symbol for symbol, read in self._reads.items() if read.done()]:
            read = self._reads.pop(symbol)
            block = None if read.cancelled() else read.result()
            if block is not None:
                found[symbol] = block
        return found

    def done(self, symbol: str, candles: int) -> None:
        """Take note that a series was rebuilt."""
        why = self._why.pop(symbol, "")
        self._note("market.features_rebuilt", {"symbol": symbol, "candles": str(candles), "since": why})

    def ask(self) -> None:
        """Read the candles of every series that waits for them and is not being read."""
        for symbol in self._why:
            if symbol not in self._reads:
                self._reads[symbol] = asyncio.create_task(self._read(symbol), name=f"rebuild {symbol}")

    async def stop(self) -> None:
        """Read no more."""
        reads = list(self._reads.values())
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        self._reads = {}

    async def _read(self, symbol: str) -> CandleBlock | None:
        try:
            return await self._history(symbol)
        except QuantumError as error:
            _log.warning("history_not_read", symbol=symbol, error=str(error)[:200])
            return None
