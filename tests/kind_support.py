"""Rows of every kind of market data for tests, seeded."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from feature_store.candle import Timeframe
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FILTERS,
    FUNDING,
    INDEX,
    KINDS,
    MARK,
    OPEN_INTEREST,
    TRADES,
    Kind,
    Subject,
)
from feature_store.kinds.records import Records
from tests.feature_support import REPOSITORY, market

__all__ = ["BTC_MARK", "BTC_PERP", "HOUR", "NEVER", "START", "rows_of", "start", "subject_of"]

HOUR = 3_600_000
START = 1_701_381_600_000
"""2023-11-30 22:00 UTC: rows cross into the next hour, day and month."""
NEVER = 10**13
BTC_PERP = Subject("sandbox", "BTC/USDT:USDT")
BTC_MARK = Subject("sandbox", "BTC/USDT:USDT", Timeframe.M15)


def subject_of(kind: Kind) -> Subject:
    """Return a subject that fits a kind."""
    return BTC_MARK if kind.has_timeframe else BTC_PERP


def rows_of(kind: Kind, count: int, seed: int = 0) -> Records:
    """Return rows of a kind from `START` on, a quarter of an hour apart."""
    assert kind in KINDS
    rng = np.random.default_rng(seed)
    times = START + np.arange(count, dtype=np.int64) * 900_000
    price = 100 + np.round(rng.random(count), 2)
    if kind is FUNDING:
        return Records.of(kind, times, funding_rate=rng.normal(0, 1e-4, count))
    if kind in (MARK, INDEX):
        values = market(count, seed=seed).values
        return Records.of(kind, times, open=values[:, 0], high=values[:, 1], low=values[:, 2], close=values[:, 3])
    if kind is OPEN_INTEREST:
        value = np.where(np.arange(count) % 7 == 3, np.nan, price * 5)
        return Records.of(kind, times, open_interest=rng.integers(1, 9, count), open_interest_value=value)
    if kind is FILTERS:
        numbers = {column.name: price for column in kind.columns if column.name not in ("status", "listed_ms")}
        return Records.of(kind, times, **numbers, status=["TRADING"] * count, listed_ms=[0] * count)
    numbers = {"price": price, "quantity": rng.integers(1, 9, count) / 10}
    flags = rng.random(count) < 0.5
    if kind in (TRADES, AGGREGATE_TRADES):
        return Records.of(kind, times, trade_id=np.arange(count), is_buyer_maker=flags, **numbers)
    assert kind is BOOK
    # Two levels of each moment.
    level = np.arange(count) % 2
    return Records.of(
        kind, times - level * 900_000, update_id=[7] * count, is_bid=[True] * count, level=level, **numbers
    )


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process of ours and wait until it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process
