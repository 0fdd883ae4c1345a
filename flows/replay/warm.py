"""`python -m flows.replay.warm`: compile the sweep engine ahead of time, so that no first backtest waits for it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from flows.replay import compiled_entry, fills, kernel
from flows.replay.fast import exit_rules_of
from flows.replay.fills import Rules
from inference.domain.policy import Policy


def main() -> int:
    """Walk once through a market of two candles in which nothing happens; numba keeps what it compiles."""
    shape = (2, 1)
    whole, real = np.ones(shape, np.int64), np.full(shape, np.nan)
    chosen: dict[str, Any] = {
        name: 1.0 if kind in ("float", float) else 1 for name, kind in Rules.__annotations__.items()
    }
    rules = Rules(**chosen)
    kernel.simulate(
        np.array([0, 300_000], np.int64), np.ones((1, 2, 4), np.int64), real, real, real,
        np.empty(0, np.int64), np.empty((0, 1), np.int64), np.ones((1, 6), np.int64), rules,
        np.empty((1, fills.TRADE_COLUMNS), np.int64), whole[:, 0].repeat(2)[:3].copy(), real[:, 0].repeat(2)[:3].copy(),
        np.zeros(compiled_entry.DENIALS, np.int64), False, exit_rules_of(None, Policy(), 300_000),
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
