"""
A seeded market with a known amount of truth in it.

One path of ten-second ticks, a function of seed, symbols and genesis (midnight at which history begins), gives
everything that can be asked: candles of any interval, tickers, trades, depth and streams.

Returns. Minute `m` of a symbol has volatility `s(m)`: its own level, a daily cycle, and two stochastic factors
(one shared by all, one its own; a half-hour and a one-day component each). The six ticks of the minute draw
`s(m) / sqrt(6)` times a mix of market, sector and own noise, plus rare jumps of either sign. All of this is
symmetric: it predicts the size of returns, never their sign.

The predictable component. Each symbol has a latent `a(m)`, a first-order autoregression with unit variance and a
memory of 150 minutes (a shock is halved in 104). With strength `edge` it does two things:

* drift: the return of minute `m` gets `c * s(m) * a(m-1)`, where `c` is such that the correlation between `a` and
  the return of the next hour (12 candles of 5 minutes), in units of volatility, is exactly `edge`;
* a leak: the log volume of minute `m` gets `0.6 * tanh(edge / 0.15) * a(m)`, beside its own noise.

So candles carry the latent twice: in recent returns (faintly) and in volume (clearly, though the volume also moves
with volatility, with the hour, and with a twenty-minute noise of its own).

What can be attained. `oracle_information_coefficient` is `edge`: no model can beat it, since it needs the latent
itself. `attainable_information_coefficient` is what the optimal linear filter (Kalman) of one symbol's own minute
returns and volumes reaches when volatility and the daily cycle are known. At the default edge of 0.45 it is about
0.40; a competent model on 5m candles, which must also estimate volatility, reaches 0.27 to 0.37. An hour's volatility
is 55 to 100 bps for most symbols, so a prediction two deviations out is worth 40 to 75 bps against about 12 bps of
fees and spread for a round trip. No real market is this kind: the default is a strength at which five shadow days are
enough to prove it. At 0.30 (attainable 0.26) the same pipeline finds the component, and most often cannot yet prove
that trading it pays; the gates then refuse, as they should.

With `edge` 0 both `c` and the leak are 0: returns are a martingale difference and volume knows nothing of sign.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.market.equations import (
    FAST_VOLATILITY,
    MEMORY_MINUTES,
    SLOW_VOLATILITY,
    VOLUME_AR,
    VOLUME_WHITE,
    drift_of,
    leak_of,
)
from infra.sandbox.market.series import (
    DAY_MS,
    MINUTE_MS,
    TICK_MS,
    TICKS_PER_DAY,
    AnyInts,
    Candles,
    TickBlock,
    empty_candles,
    join,
    quote_unit,
)
from infra.sandbox.market.universe import Character, characters, named

MINUTES = 1440
PER_MINUTE = 6

_JUMPS_PER_DAY_COMMON = 0.2
_JUMPS_PER_DAY_OWN = 0.6
_JUMP_SIZE = 8.0

F64 = NDArray[np.float64]


def _autoregress(shocks: F64, start: F64, memory: float) -> F64:
    """x(t) = phi x(t-1) + shocks(t) along the last axis, in blocks short enough for the closed form."""
    phi = float(np.exp(-1.0 / memory))
    length = shocks.shape[-1]
    block = max(1, min(length, int(memory * 8)))
    out = np.empty_like(shocks)
    state = start
    for begin in range(0, length, block):
        part = shocks[..., begin : begin + block]
        powers = phi ** np.arange(1, part.shape[-1] + 1)
        path = powers * (state[..., None] + np.cumsum(part / powers, axis=-1))
        out[..., begin : begin + block] = path
        state = path[..., -1]
    return out


@dataclass(frozen=True, slots=True)
class _Carry:
    """What one day hands to the next: row 0 is the market, the others the symbols."""

    log_price: F64
    latent: F64
    volume_noise: F64
    fast: F64
    slow: F64


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatility:
    """
    What moved prices on one day, symbols by minutes.

    `shared` and `own` are the fast and the slow component of log volatility of the market (one row) and of each symbol;
    `minute` is each symbol's ordinary volatility of a minute, `cycle` the day's, `quantity` what is ordinarily traded.
    """

    shared: tuple[F64, F64]
    own: tuple[F64, F64]
    shared_share: F64
    minute: F64
    cycle: F64
    quantity: F64


class SyntheticMarket:
    """The market described above, generated day by day and kept as minute candles; ticks of a few days are at hand."""

    kind = "synthetic"
    base_ms = MINUTE_MS
    end_ms: int | None = None

    def __init__(
        self, *, symbols: int, seed: int, edge: float, start_ms: int, history_days: int, names: tuple[str, ...] = ()
    ) -> None:
        self.seed = seed
        self.edge = edge
        self.characters: tuple[Character, ...] = named(names, seed) if names else characters(symbols, seed)
        self.instruments = tuple(
            instrument_for_price(c.symbol, c.base, c.price, depth_notional=max(20_000.0, c.minute_notional / 6))
            for c in self.characters
        )
        self.start_ms = start_ms
        self._first_day = (start_ms - history_days * DAY_MS) // DAY_MS
        self.first_ms = self._first_day * DAY_MS
        self._candles: list[tuple[AnyInts, ...]] = []
        self._ticks: dict[int, TickBlock] = {}
        self._carries: list[_Carry] = [self._genesis()]
        # The venue makes tomorrow's ticks in a thread while today's are read.
        self._making = threading.RLock()
        self._static = _Static(self.characters)
        # One allocation for the whole history: many small ones between large temporary arrays would splinter memory.
        days = start_ms // DAY_MS + 1 - self._first_day
        shape = (days, len(self.instruments), MINUTES)
        self._store: list[AnyInts] = [np.empty(shape, np.int32) for _ in range(5)] + [np.empty(shape, np.float64)]
        for day in range(self._first_day, self._first_day + days):
            self._extend(day)

    def is_trading(self, index: int, now_ms: int) -> bool:
        """A synthetic instrument always trades."""
        del index, now_ms
        return True

    def tape(self, index: int) -> None:
        """Return None: nothing was recorded."""
        del index

    def snapshots(self, index: int) -> None:
        """Return None: nothing was recorded."""
        del index

    def listed_ms(self, index: int) -> int:
        """All synthetic instruments are listed from the beginning."""
        del index
        return self.first_ms

    def ticks(self, day: int) -> TickBlock:
        """Ticks of one UTC day, counted from 1970."""
        known = self._ticks.get(day)
        if known is not None:
            return known
        place = day - self._first_day
        if place < 0:
            nothing = np.zeros((TICKS_PER_DAY, len(self.instruments)), np.int32)
            return TickBlock(day * DAY_MS, nothing, nothing)
        with self._making:
            self._reach(day)
            block = self._ticks.get(day)
            if block is None:
                block, _ = self._generate(day, self._carries[place])
                self._keep(day, block)
        return block

    def _reach(self, day: int) -> None:
        with self._making:
            while len(self._candles) <= day - self._first_day:
                self._extend(self._first_day + len(self._candles))

    def latent(self, day: int) -> F64:
        """The hidden component of one day, symbols by minutes: the truth, for those who check a model against it."""
        self.ticks(day)
        return self._latents(day, self._carries[day - self._first_day], slice(0, len(self.characters)))[0]

    def volatility(self, day: int) -> Volatility:
        """How lively one day was, minute by minute: the truth, for those who check a model against it."""
        self.ticks(day)
        carry = self._carries[day - self._first_day]
        common = np.random.default_rng([self.seed, 4, day])
        common.standard_normal((4, TICKS_PER_DAY), dtype=np.float32)
        shared = _volatility(common.standard_normal((1, 2, MINUTES)), carry.fast[:1], carry.slow[:1])
        rows = [np.random.default_rng([self.seed, 5, day, one.place]) for one in self.characters]
        shocks = np.array([row.standard_normal((2, MINUTES)) for row in rows])
        own = _volatility(shocks, carry.fast[1:], carry.slow[1:])
        static = self._static
        return Volatility(
            shared=shared, own=own, shared_share=static.market + static.sector,
            minute=static.minute_volatility, cycle=static.cycle, quantity=static.minute_quantity,
        )  # fmt: skip

    def history(self, index: int, start_ms: int, end_ms: int) -> Candles:
        """Minute candles of one symbol that open in [start_ms, end_ms)."""
        start_ms = max(start_ms, self.first_ms)
        if end_ms <= start_ms:
            return empty_candles()
        last_day = (end_ms - 1) // DAY_MS
        self._reach(last_day)
        return join(
            [self._day_history(index, day, start_ms, end_ms) for day in range(start_ms // DAY_MS, last_day + 1)]
        )

    def _day_history(self, index: int, day: int, start_ms: int, end_ms: int) -> Candles:
        midnight = day * DAY_MS
        first = -(-max(0, start_ms - midnight) // MINUTE_MS)
        stop = min(MINUTES, -(-(end_ms - midnight) // MINUTE_MS))
        kept = self._candles[day - self._first_day]
        opened, high, low, close, volume, quote = (part[index, first:stop] for part in kept)
        times = midnight + np.arange(first, stop, dtype=np.int64) * MINUTE_MS
        return Candles(times, opened, high, low, close, volume, quote, np.full(len(times), PER_MINUTE, np.int64))

    def _genesis(self) -> _Carry:
        places = [0, *(one.place + 1 for one in self.characters)]
        rows = [np.random.default_rng([self.seed, 2, place]).standard_normal(4) for place in places]
        draw = np.array(rows)
        return _Carry(
            log_price=np.log([c.price for c in self.characters]),
            latent=draw[1:, 0],
            volume_noise=draw[1:, 1] * VOLUME_AR[1],
            fast=draw[:, 2] * FAST_VOLATILITY[1],
            slow=draw[:, 3] * SLOW_VOLATILITY[1],
        )

    def _extend(self, day: int) -> None:
        block, carry = self._generate(day, self._carries[-1])
        self._carries.append(carry)
        shape = (MINUTES, PER_MINUTE, len(self.instruments))
        price, volume = block.price.reshape(shape), block.volume.reshape(shape)
        columns = (
            price[:, 0],
            price.max(axis=1),
            price.min(axis=1),
            price[:, -1],
            volume.sum(axis=1, dtype=np.int32),
            (price * volume.astype(np.float64)).sum(axis=1) * self._static.units,
        )
        place = len(self._candles)
        if place < len(self._store[0]):
            for kept, column in zip(self._store, columns, strict=True):
                kept[place] = column.T
            self._candles.append(tuple(kept[place] for kept in self._store))
        else:
            self._candles.append(tuple(np.ascontiguousarray(column.T) for column in columns))
        self._keep(day, block)

    def _keep(self, day: int, block: TickBlock) -> None:
        self._ticks[day] = block
        while len(self._ticks) > 3:
            self._ticks.pop(next(iter(self._ticks)))

    def _latents(self, day: int, carry: _Carry, rows: slice) -> tuple[F64, F64]:
        """Latent and volume noise of a day; both have draws of their own, so that they can be told alone."""
        phi, rho = np.exp(-1.0 / MEMORY_MINUTES), np.exp(-1.0 / VOLUME_AR[0])
        shocks = np.array(
            [
                np.random.default_rng([self.seed, 3, day, one.place]).standard_normal((2, MINUTES))
                for one in self.characters[rows]
            ]
        )
        latent = _autoregress(shocks[:, 0] * np.sqrt(1 - phi**2), carry.latent[rows], MEMORY_MINUTES)
        noise = _autoregress(shocks[:, 1] * VOLUME_AR[1] * np.sqrt(1 - rho**2), carry.volume_noise[rows], VOLUME_AR[0])
        return latent, noise

    def _generate(self, day: int, carry: _Carry) -> tuple[TickBlock, _Carry]:
        count = len(self.characters)
        common = np.random.default_rng([self.seed, 4, day])
        factors = common.standard_normal((4, TICKS_PER_DAY), dtype=np.float32)
        fast, slow = _volatility(common.standard_normal((1, 2, MINUTES)), carry.fast[:1], carry.slow[:1])
        shared = _Shared(factors, _level(fast, slow)[0], _jumps(common, _JUMPS_PER_DAY_COMMON))
        price = np.empty((TICKS_PER_DAY, count), np.int32)
        volume = np.empty((TICKS_PER_DAY, count), np.int32)
        handed = _Carry(
            log_price=np.empty(count),
            latent=np.empty(count),
            volume_noise=np.empty(count),
            fast=np.concatenate([fast[:, -1], np.empty(count)]),
            slow=np.concatenate([slow[:, -1], np.empty(count)]),
        )
        # Some symbols at a time, to bound the memory of the arrays in between.
        for begin in range(0, count, 16):
            self._fill(day, carry, shared, slice(begin, min(count, begin + 16)), out=(price, volume, handed))
        return TickBlock(day * DAY_MS, price, volume), handed

    def _fill(
        self,
        day: int,
        carry: _Carry,
        shared: _Shared,
        rows: slice,
        *,
        out: tuple[NDArray[np.int32], NDArray[np.int32], _Carry],
    ) -> None:
        static = self._static
        market, sector = static.market[rows], static.sector[rows]
        own = [np.random.default_rng([self.seed, 5, day, one.place]) for one in self.characters[rows]]
        after = slice(rows.start + 1, rows.stop + 1)
        latent, volume_noise = self._latents(day, carry, rows)
        shocks = np.array([g.standard_normal((2, MINUTES)) for g in own])
        fast, slow = _volatility(shocks, carry.fast[after], carry.slow[after])

        # Volatility of each minute, in a common and an own part.
        common_part = np.sqrt(market + sector) * shared.level
        own_part = static.own[rows] * _level(fast, slow)
        scale = static.minute_volatility[rows] * static.cycle / np.sqrt(PER_MINUTE)
        total = scale * np.sqrt(common_part**2 + own_part**2) * np.sqrt(PER_MINUTE)

        # Returns of each tick.
        mixed = np.sqrt(market) * shared.factors[0] + np.sqrt(sector) * shared.factors[1:][static.sectors[rows]]
        returns = _ticks_of(scale * common_part) * (mixed / np.sqrt(market + sector))
        returns += _ticks_of(scale * own_part) * np.array([g.standard_normal(TICKS_PER_DAY) for g in own])
        before = np.concatenate([carry.latent[rows][:, None], latent[:, :-1]], axis=1)
        returns += _ticks_of((drift_of(self.edge) * total * before - 0.5 * total**2) / PER_MINUTE)
        jumps = shared.jumps + np.array([_jumps(g, _JUMPS_PER_DAY_OWN) for g in own])
        returns += _ticks_of(total) * jumps
        path = carry.log_price[rows][:, None] + np.cumsum(returns, axis=1)

        # Volume of each minute, then shared out over its ticks.
        log_volume = 0.8 * np.log(total / static.minute_volatility[rows]) + leak_of(self.edge) * latent + volume_noise
        log_volume += VOLUME_WHITE * np.array([g.standard_normal(MINUTES) for g in own])
        weights = np.array([g.standard_exponential(TICKS_PER_DAY, dtype=np.float32) for g in own])
        weights = weights.reshape(len(own), MINUTES, PER_MINUTE)
        weights /= weights.sum(axis=2, keepdims=True)
        steps = (static.minute_quantity[rows] * np.exp(log_volume))[:, :, None] * weights
        steps = steps.reshape(len(own), TICKS_PER_DAY) * (1.0 + 2.0 * np.minimum(np.abs(jumps), 2))

        price, volume, handed = out
        price[:, rows] = np.maximum(1, np.rint(np.exp(path) * static.price_scale[rows])).T
        volume[:, rows] = np.clip(np.rint(steps), 1, 100_000_000).T
        handed.log_price[rows], handed.latent[rows] = path[:, -1], latent[:, -1]
        handed.volume_noise[rows], handed.fast[after], handed.slow[after] = (
            volume_noise[:, -1],
            fast[:, -1],
            slow[:, -1],
        )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all symbols have in common on one day."""

    factors: NDArray[np.float32]
    level: F64
    jumps: F64


class _Static:
    """Arrays of what never changes, one row per symbol."""

    def __init__(self, chosen: tuple[Character, ...]) -> None:
        instruments = [instrument_for_price(c.symbol, c.base, c.price) for c in chosen]
        self.market = _column(c.market_share for c in chosen)
        self.sector = _column(c.sector_share for c in chosen)
        self.sectors = np.array([c.sector for c in chosen])
        self.own = np.sqrt(1.0 - self.market - self.sector)
        self.minute_volatility = _column(c.daily_volatility for c in chosen) / np.sqrt(MINUTES)
        self.units = np.array([quote_unit(i) for i in instruments])
        self.price_scale = _column(10.0**i.price_decimals for i in instruments)
        self.minute_quantity = _column(
            c.minute_notional / c.price * 10.0**i.quantity_decimals for c, i in zip(chosen, instruments, strict=True)
        )
        hours = np.arange(MINUTES) / 60.0
        # Busiest in the early American afternoon, quietest before the European morning.
        self.cycle = np.exp(0.25 * np.cos(2 * np.pi * (hours - 15.0) / 24.0) + 0.08 * np.cos(4 * np.pi * hours / 24.0))


def _column(values: Iterable[float]) -> F64:
    return np.array(list(values), np.float64)[:, None]


def _volatility(shocks: F64, fast: F64, slow: F64) -> tuple[F64, F64]:
    paths = []
    for place, (memory, deviation), start in ((0, FAST_VOLATILITY, fast), (1, SLOW_VOLATILITY, slow)):
        phi = np.exp(-1.0 / memory)
        paths.append(_autoregress(shocks[:, place] * deviation * np.sqrt(1 - phi**2), start, memory))
    return paths[0], paths[1]


def _level(fast: F64, slow: F64) -> F64:
    """Volatility relative to the ordinary; its mean square is one."""
    level: F64 = np.exp(fast + slow - FAST_VOLATILITY[1] ** 2 - SLOW_VOLATILITY[1] ** 2)
    return level


def _ticks_of(minutes: F64) -> F64:
    return np.repeat(minutes, PER_MINUTE, axis=1)


def _jumps(generator: np.random.Generator, per_day: float) -> F64:
    """Jump of each tick in units of minute volatility; nearly all are zero, and either sign is as likely."""
    out = np.zeros(TICKS_PER_DAY)
    for at in generator.integers(0, TICKS_PER_DAY, generator.poisson(per_day)):
        out[at] += generator.standard_normal() * _JUMP_SIZE
    return out


assert TICK_MS * PER_MINUTE == MINUTE_MS
