"""Peers of the feature kernel: the same 49 as expressions of Polars over the symbol, and of pandas series by series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from feature_store.features.definition import FEATURE_NAMES


@dataclass(frozen=True, slots=True)
class Column:
    """A Polars expression, and after which pass over the frame its columns exist."""

    expression: Any
    after: int = 0

    def _with(self, other: Any, how: str) -> Column:
        right, after = (other.expression, other.after) if isinstance(other, Column) else (other, 0)
        return Column(getattr(self.expression, how)(right), max(self.after, after))

    def __add__(self, other: Any) -> Column:
        return self._with(other, "__add__")

    def __sub__(self, other: Any) -> Column:
        return self._with(other, "__sub__")

    def __mul__(self, other: Any) -> Column:
        return self._with(other, "__mul__")

    def __truediv__(self, other: Any) -> Column:
        return self._with(other, "__truediv__")

    def __gt__(self, other: Any) -> Column:
        return self._with(other, "__gt__")

    def __and__(self, other: Any) -> Column:
        return self._with(other, "__and__")

    def equal(self, other: Column) -> Column:
        """Compare cell by cell."""
        return self._with(other, "__eq__")


class Polars:
    """Windows over the symbol, each computed once: a pass makes all whose arguments the passes before have made."""

    def __init__(self) -> None:
        self.passes: list[list[Any]] = []

    def column(self, name: str) -> Column:
        """Return a column of the file."""
        return Column(pl.col(name))

    def _keep(self, made: Any, after: int, *, over: bool = True) -> Column:
        while len(self.passes) <= after:
            self.passes.append([])
        name = f"_{after}_{len(self.passes[after])}"
        self.passes[after].append((made.over("symbol") if over else made).alias(name))
        return Column(pl.col(name), after + 1)

    def window(self, x: Column, how: str, *arguments: Any, **options: Any) -> Column:
        """Apply a window function within each symbol."""
        return self._keep(getattr(x.expression, how)(*arguments, **options), x.after)

    def shift(self, x: Column, back: int) -> Column:
        """Return the value some candles ago."""
        return self.window(x, "shift", back)

    def rolling(self, x: Column, length: int, how: str, **options: Any) -> Column:
        """Apply an aggregate to the last candles."""
        return self.window(x, f"rolling_{how}", length, **options)

    def weighted(self, x: Column, weights: Sequence[float]) -> Column:
        """Return the weighted mean of the last candles."""
        return self.window(x, "rolling_mean", len(weights), weights=list(weights))

    def seeded(self, x: Column, seed: Column, begins: int, weight: float) -> Column:
        """Return the exponential average that begins with a seed."""
        n = pl.int_range(pl.len())
        value = pl.when(n < begins).then(None).when(n == begins).then(seed.expression).otherwise(x.expression)
        return self._keep(value.ewm_mean(alpha=weight, adjust=False, ignore_nulls=True), max(x.after, seed.after))

    def where(self, condition: Column, yes: Any, no: Any) -> Column:
        """Choose cell by cell."""
        parts = [one for one in (condition, yes, no) if isinstance(one, Column)]
        values = [one.expression if isinstance(one, Column) else one for one in (yes, no)]
        made = pl.when(condition.expression).then(values[0]).otherwise(values[1])
        return self._keep(made, max(one.after for one in parts), over=False)

    def apply(self, x: Column, how: str) -> Column:
        """Apply a function of single cells."""
        return Column(getattr(x.expression, how)(), x.after)

    def larger(self, *columns: Column) -> Column:
        """Return the largest cell of each row."""
        return Column(pl.max_horizontal(*[one.expression for one in columns]), max(one.after for one in columns))

    def filled(self, x: Column, other: Column) -> Column:
        """Carry values forward, and begin with another column."""
        carried = self.window(x, "forward_fill")
        return Column(carried.expression.fill_null(other.expression), max(carried.after, other.after))


class Pandas:
    """The same operations on the series of one symbol."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def column(self, name: str) -> Any:
        """Return a column of the frame."""
        return self.frame[name]

    def window(self, x: Any, how: str) -> Any:
        """Apply a window function."""
        return x.cumsum() if how == "cum_sum" else getattr(x, how)()

    def shift(self, x: Any, back: int) -> Any:
        """Return the value some candles ago."""
        return x.shift(back)

    def rolling(self, x: Any, length: int, how: str, **options: Any) -> Any:
        """Apply an aggregate to the last candles."""
        return getattr(x.rolling(length), how)(**options)

    def weighted(self, x: Any, weights: Sequence[float]) -> Any:
        """Return the weighted mean of the last candles."""
        valid = np.convolve(x.to_numpy(), np.array(weights)[::-1] / sum(weights), mode="valid")
        return pd.Series(np.concatenate([np.full(len(weights) - 1, np.nan), valid]), index=x.index)

    def seeded(self, x: Any, seed: Any, begins: int, weight: float) -> Any:
        """Return the exponential average that begins with a seed."""
        value = x.to_numpy(copy=True)
        value[:begins], value[begins] = np.nan, seed.iloc[begins]
        return pd.Series(value, index=x.index).ewm(alpha=weight, adjust=False).mean()

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """Choose cell by cell."""
        return pd.Series(np.where(condition, yes, np.nan if no is None else no), index=condition.index)

    def apply(self, x: Any, how: str) -> Any:
        """Apply a function of single cells."""
        return x.abs() if how == "abs" else np.log(x)

    def larger(self, *columns: Any) -> Any:
        """Return the largest cell of each row; NaN is passed over."""
        first, *others = columns
        for one in others:
            first = np.fmax(first, one)
        return first

    def filled(self, x: Any, other: Any) -> Any:
        """Carry values forward, and begin with another column."""
        return x.ffill().fillna(other)


def _wilder(on: Any, x: Any, begins: int) -> Any:
    return on.seeded(x, on.rolling(x, 14, "mean"), begins, 1 / 14)


def _ema(on: Any, x: Any, length: int, seed_length: int, begins: int) -> Any:
    return on.seeded(x, on.rolling(x, seed_length, "mean"), begins, 2 / (length + 1))


def _direction(on: Any, h: Any, low: Any, true_range: Any) -> tuple[Any, Any]:
    up, down = h - on.shift(h, 1), on.shift(low, 1) - low
    plus = on.where((up > 0.0) & (up > down), up, 0.0)
    minus = on.where((down > 0.0) & (down > up), down, 0.0)
    # TA-Lib begins with the sum of candles 1 to 13, and takes off a 14th before it adds the next.
    plus, minus = (on.seeded(x * 14.0, on.rolling(x, 13, "sum"), 13, 1 / 14) for x in (plus, minus))
    del true_range
    balance = (plus - minus) / (plus + minus)
    strength = on.apply(balance, "abs") * 100.0
    return balance, strength


def _cci(on: Any, h: Any, low: Any, c: Any) -> Any:
    typical = (h + low + c) / 3.0
    mean = on.rolling(typical, 20, "mean")
    apart = on.apply(typical - mean, "abs")
    for back in range(1, 20):
        apart = apart + on.apply(on.shift(typical, back) - mean, "abs")
    return (typical - mean) / (apart * (0.015 / 20))


def _money_flow(on: Any, h: Any, low: Any, c: Any, v: Any) -> Any:
    typical = (h + low + c) / 3.0
    moved, flow = typical - on.shift(typical, 1), typical * v
    rising = on.rolling(on.where(moved > typical * 1e-13, flow, 0.0), 14, "sum")
    falling = on.rolling(on.where(moved * -1.0 > typical * 1e-13, flow, 0.0), 14, "sum")
    return rising / (rising + falling) * 100.0


def features(on: Any) -> list[Any]:
    """Return the 49 in their order, on whatever library `on` writes for."""
    o, h, low, c, v = (on.column(name) for name in ("open", "high", "low", "close", "volume"))
    before = {back: on.shift(c, back) for back in (1, 3, 6, 10, 12, 24, 48)}
    change = c - before[1]
    log = {back: on.apply(c / before[back], "log") for back in (1, 6, 12, 24, 48)}
    rise = change / before[1]
    gain, loss = on.where(change > 0.0, change, 0.0), on.where(change * -1.0 > 0.0, change * -1.0, 0.0)
    # The first change is none: averages of changes begin at candle 14.
    gain, loss = _wilder(on, gain, 14), _wilder(on, loss, 14)
    macd = _ema(on, c, 12, 12, 25) - _ema(on, c, 26, 26, 25)
    signal = on.seeded(macd, on.rolling(macd, 9, "mean"), 33, 0.2)
    middle, spread = on.rolling(c, 20, "mean"), on.rolling(c, 20, "std", ddof=0)
    top, bottom = on.rolling(h, 14, "max"), on.rolling(low, 14, "min")
    slow = on.rolling((c - bottom) / (top - bottom) * 100.0, 3, "mean")
    true_range = on.larger(h - low, on.apply(h - before[1], "abs"), on.apply(low - before[1], "abs"))
    atr = _wilder(on, true_range, 14)
    balance, strength = _direction(on, h, low, true_range)
    adx = on.seeded(strength, on.rolling(strength, 14, "mean"), 27, 1 / 14)
    ema_10, ema_20, ema_50 = (_ema(on, c, length, length, length - 1) for length in (10, 20, 50))
    usual_volume = on.rolling(v, 20, "mean")
    signed = on.where(change > 0.0, v, on.where(change * -1.0 > 0.0, v * -1.0, 0.0))
    hv_20, hv_60 = on.rolling(log[1], 20, "std", ddof=1), on.rolling(log[1], 60, "std", ddof=1)
    low_11, high_11 = on.rolling(low, 11, "min"), on.rolling(h, 11, "max")
    support = on.where(_equal(on.shift(low, 5), low_11), low_11, None)
    resistance = on.where(_equal(on.shift(h, 5), high_11), high_11, None)
    first = on.column("first")
    return [
        *(o, h, low, c, v, change, rise, (c - before[3]) / before[3], (c - before[12]) / before[12]),
        *(log[1], log[6], log[24], gain / (gain + loss) * 100.0, macd, signal, macd - signal),
        *(middle + spread * 2.0, middle, middle - spread * 2.0, slow, on.rolling(slow, 3, "mean"), atr, adx),
        *(on.rolling(c, 10, "mean"), on.rolling(c, 30, "mean"), on.rolling(c, 50, "mean"), ema_10, ema_20, ema_50),
        *(on.weighted(c, range(1, 21)), usual_volume, v / usual_volume, on.window(signed + first, "cum_sum")),
        *(on.window(on.where(first > 0.0, 0.0, v * rise), "cum_sum"), hv_20, hv_60, atr / c, spread * 4.0 / middle),
        *(on.apply(ema_20 - ema_50, "abs") / atr, balance),
        *(on.filled(support, low_11), on.filled(resistance, high_11)),
        *((c - before[10]) / before[10] * 100.0, (c - before[48]) / before[48] * 100.0, _cci(on, h, low, c)),
        *((c - top) / (top - bottom) * 100.0, _money_flow(on, h, low, c, v)),
        *(log[12] / (hv_60 * math.sqrt(12)), log[48] / (hv_60 * math.sqrt(48))),
    ]


def _equal(left: Any, right: Any) -> Any:
    return left.equal(right) if isinstance(left, Column) else left == right


def by_polars(frame: Any) -> Any:
    """Return the 49 of a frame of all symbols; `first` holds the volume of each symbol's first candle, else 0."""
    on = Polars()
    made = features(on)
    for one in on.passes:
        frame = frame.with_columns(one)
    return frame.select([one.expression.alias(name) for name, one in zip(FEATURE_NAMES, made, strict=True)])


def by_pandas(frame: Any) -> Any:
    """Return the 49 of a frame of one symbol."""
    made = features(Pandas(frame))
    return pd.DataFrame(dict(zip(FEATURE_NAMES, made, strict=True)), copy=False)
