"""What a worker's account would have come to, had it traded by a candidate over candles that nobody saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal

import numpy as np

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.market import Floats, Opinions, ScoredMarket, VenueCosts
from flows.replay.metrics import DAYS_PER_YEAR, TradeTable, figures
from flows.replay.outcome import BacktestRun
from flows.replay.told_regimes import Labels
from flows.replay.word import replay
from flows.training.dataset import Dataset, FrameSet, Rows
from flows.training.evaluate import spread
from flows.training.moments import BlockSums, Interval, Sampling, ratio
from flows.training.report import WorkerReplay
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import Policy
from inference.models.manifest import TimeWindow

_DAY_MS = 86_400_000
# An account below this is gone; no candle can lose more of it.
_GONE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    The rules that a worker trades by, what its account holds at the start, and the spread that it pays.

    `exits` are the exit profiles that the policy may name: those built in, and those of the home.
    """

    policy: Policy = field(default_factory=Policy)
    exits: Mapping[str, ExitProfile] = field(default_factory=lambda: BUILT_IN)
    balance: Decimal = Decimal(10_000)
    spread_bps: Decimal = Decimal(1)

    @property
    def costs(self) -> VenueCosts:
        """What the venue charges: the fee that the policy expects, and the spread."""
        return VenueCosts(taker_fee=self.policy.taker_fee, spread_bps=self.spread_bps)


def opinions_of(
    dataset: Dataset, rows: Rows, expected: Floats, probability_up: Floats, regimes: Labels | None = None
) -> dict[str, Opinions]:
    """Return what was said of each symbol's rows, oldest first; rows that nothing was said of hold NaN."""
    found = {}
    for number, symbol in enumerate(dataset.symbols):
        mine = np.flatnonzero(rows.series == number)
        mine = mine[np.argsort(rows.open_time_ms[mine], kind="stable")]
        found[symbol] = Opinions(
            rows.open_time_ms[mine],
            expected[mine],
            probability_up[mine],
            None if regimes is None else regimes[mine],
        )
    return found


def traded_market(
    frames: FrameSet, opinions: Mapping[str, Opinions], window: TimeWindow, *, threshold: float, version: str
) -> ScoredMarket:
    """
    Return the market of a window, as a replay walks through it: its candles, and what was said at their closes.

    Raises:
        BadInputError: The frames do not hold what was traded, or hold no candle of the window.
    """
    without = [frame.symbol for frame in frames.frames if frame.traded is None]
    if without:
        raise BadInputError(f"Of {', '.join(without)} no prices are there to trade at")
    parts = {
        frame.symbol: frame.traded.between(window.start_ms, window.end_ms)
        for frame in frames.frames
        if frame.traded is not None
    }
    return ScoredMarket.of(
        {symbol: part.block for symbol, part in parts.items()},
        atr={symbol: part.atr for symbol, part in parts.items()},
        opinions=opinions,
        timeframe_ms=frames.timeframe_ms,
        threshold=threshold,
        model_version=version,
        funding={symbol: (part.funding_time_ms, part.funding_rate) for symbol, part in parts.items()},
        ticks={symbol: part.tick for symbol, part in parts.items()},
    )


def worker_account(
    market: ScoredMarket, terms: Terms, *, horizon_ms: int, sampling: Sampling
) -> tuple[dict[str, float], WorkerReplay]:
    """
    Trade a market by the worker's own decisions; return the figures by name, and the account to be drawn.

    Equity is marked at the open of each candle. `net_per_day_bps` is what the account gained a day over staying flat,
    in hundredths of a percent of what it began with, with its interval: blocks of two horizons or two of the longest
    holdings, whichever is longer, so that blocks hardly share a position.

    Args:
        market: Candles and opinions.
        terms: The worker's rules and its account.
        horizon_ms: How far ahead the model looks.
        sampling: How many samples the interval is drawn from, and by which seed; blocks are this function's.
    """
    run = _walked(market, terms)
    found = figures(TradeTable.of(run), run.time_ms, run.equity, run.exposure)
    sharpe = found.pop("sharpe", math.nan)
    # A few days, taken to a year, are a number without a meaning.
    found.pop("calmar", None)
    held = {
        "sharpe_per_day": sharpe / math.sqrt(DAYS_PER_YEAR),
        "sharpe_per_year": sharpe,
        "approved": float(run.approved),
        "denied": float(sum(run.denied.values())),
        "liquidated": float(run.liquidated_ms is not None),
        "stopped": float(run.stopped_ms is not None),
    }
    block_ms = 2 * max(horizon_ms, terms.policy.max_holding_candles * market.timeframe_ms)
    blocks = Sampling(block_ms=block_ms, samples=sampling.samples, seed=sampling.seed)
    net = spread("net_per_day_bps", _net_per_day(market, run, blocks))
    told = WorkerReplay(
        policy={name: str(value) for name, value in terms.policy.stated().items()},
        policy_fingerprint=terms.policy.fingerprint,
        balance=str(terms.balance),
        costs={name: str(value) for name, value in asdict(terms.costs).items()},
        denied=dict(run.denied),
        time_ms=tuple(run.time_ms.tolist()),
        equity=tuple(run.equity.tolist()),
    )
    return {name: value for name, value in (found | held | net).items() if math.isfinite(value)}, told


def _walked(market: ScoredMarket, terms: Terms) -> BacktestRun:
    try:
        return FastEngine(market).run(terms.policy, balance=terms.balance, costs=terms.costs, exits=terms.exits)
    except BadInputError:
        # What is too fine or too large for whole numbers of 63 bits is walked through in decimals, and takes minutes.
        return replay(market, terms.policy, balance=terms.balance, costs=terms.costs, exits=terms.exits)


def _net_per_day(market: ScoredMarket, run: BacktestRun, sampling: Sampling) -> Interval:
    """Return the gain a day over staying flat, in bps of the first equity, blocks drawn with replacement."""
    gained = _gains(run.equity, len(market))
    days = np.full(len(market), market.timeframe_ms / _DAY_MS)
    sums = BlockSums.of(market.open_time_ms, sampling.block_ms, {"net": 1e4 * gained, "days": days})
    return sums.interval(lambda s: ratio(s["net"], s["days"]), sampling)


def _gains(equity: Floats, candles: int) -> Floats:
    """Return what each candle added, as a share of the first equity; after a liquidation nothing is added."""
    gained = np.zeros(candles)
    steps = np.diff(equity) / max(float(equity[0]), _GONE)
    gained[: len(steps)] = steps
    return gained
