"""
The sweep engine beside vectorbt and backtesting.py, and beside the worker's own decision code.

All are given the same candles, and entries and exits as far as each knows them, and are asked for the trades alone.
Ours does more: one account with slots, exposure, heat, a daily stop, sizing by risk, a spread, funding, and a path of
prices inside each candle that ends a position.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

import numpy as np

from feature_store.clock import monotonic
from flows.replay.fast import FastEngine
from flows.replay.market import ScoredMarket
from flows.replay.word import replay
from inference.domain.policy import Policy
from infra.prove.backtest_market import make_market
from infra.prove.proof import Proof, Size

# Symbols and candles; of those the first symbols that backtesting.py is timed on, one by one as it works.
SIZES = {Size.FULL: (100, 25_920, 100), Size.CI: (40, 5_184, 3)}
# What the worker's own code walks through to be compared trade by trade.
COMPARED = {Size.FULL: 25_920, Size.CI: 1_000}
VECTORBT_BAR, BACKTESTING_BAR = 20.0, 1000.0
ROUNDS = {Size.FULL: 3, Size.CI: 2}
BALANCE = Decimal(1_000_000)
POLICY = Policy(max_daily_drawdown=Decimal("0.15"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Median seconds of one engine over all symbols, and the trades it made."""

    seconds: float
    trades: int


def prove(size: Size) -> Proof:
    """Time the three in alternation, then compare every trade with the worker's own."""
    symbols, candles, of_peer = SIZES[size]
    market = make_market(symbols=symbols, candles=candles, seed=11, confident=0.006)
    ours, vectorbt, backtesting = _race(market, of_peer, ROUNDS[size])
    part = market.between(market.start_ms, market.start_ms + COMPARED[size] * market.timeframe_ms)
    word, fast = replay(part, POLICY, balance=BALANCE), FastEngine(part).run(POLICY, balance=BALANCE)
    differing = sum(a != b for a, b in zip(word.trades, fast.trades, strict=False))
    differing += abs(len(word.trades) - len(fast.trades))
    return judged(
        ours, vectorbt, backtesting, market=(symbols, candles), compared=(len(word.trades), differing, len(part)),
        of_peer=of_peer,
    )  # fmt: skip


def judged(
    ours: Timing,
    vectorbt: Timing,
    backtesting: Timing,
    *,
    market: tuple[int, int],
    compared: tuple[int, int, int],
    of_peer: int,
) -> Proof:
    """Hold ours against both bars; a trade that differs is a defect and no matter of speed."""
    symbols, candles = market
    trades, differing, over = compared
    faster = vectorbt.seconds / ours.seconds, backtesting.seconds / ours.seconds
    equal = differing == 0 and trades > 0
    quick = faster[0] >= VECTORBT_BAR and faster[1] >= BACKTESTING_BAR
    bars = symbols * candles / 1e6
    return Proof(
        name="backtest-speed",
        figure=f"{symbols} x {candles:,} candles in {ours.seconds * 1e3:.1f} ms: {faster[0]:.0f}x vectorbt, "
        f"{faster[1]:.0f}x backtesting.py, {differing} of {trades:,} trades differ from the worker's own",
        bar=f">= {VECTORBT_BAR:g}x vectorbt, >= {BACKTESTING_BAR:g}x backtesting.py, none differs",
        holds=equal and quick,
        is_speed=equal,
        details=(
            _told(f"ours: {ours.seconds * 1e3:.1f} ms", ours) + f", {bars / ours.seconds:.0f} M candles a second; "
            "stop, target, time barrier and all limits of the portfolio",
            _told(f"vectorbt 1.2 (numba, one group that shares cash): {vectorbt.seconds * 1e3:.0f} ms", vectorbt)
            + "; stop and target, no time barrier, fixed size, no limits",
            _told(f"backtesting.py 0.6.6: {backtesting.seconds:.1f} s for {symbols} symbols", backtesting)
            + f" of {of_peer} measured, one by one; stop, target and time barrier, no portfolio",
            f"compared with decide() at the matching engine over {over:,} candles of each symbol, trade by trade",
            "compiled and imported before; one thread; medians, in alternation",
        ),
    )


def _told(what: str, timing: Timing) -> str:
    return f"{what}, {timing.trades:,} trades"


def _race(market: ScoredMarket, of_peer: int, rounds: int) -> tuple[Timing, Timing, Timing]:
    engine = FastEngine(market)
    runs: dict[str, Callable[[], int]] = {
        "ours": lambda: len(engine.simulate(POLICY, balance=BALANCE).trades),
        "vectorbt": _vectorbt(market),
        "backtesting": _backtesting(market, of_peer),
    }
    # Ours and vectorbt are over before a busy machine is noticed: they run more often.
    often = {"ours": 7, "vectorbt": 2, "backtesting": 1}
    counted = {name: run() for name, run in runs.items() if name != "backtesting"}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(often[name]):
                started = monotonic()
                counted[name] = run()
                seconds[name].append(monotonic() - started)
    share = len(market.symbols) / of_peer
    return (
        Timing(seconds=median(seconds["ours"]), trades=counted["ours"]),
        Timing(seconds=median(seconds["vectorbt"]), trades=counted["vectorbt"]),
        Timing(seconds=median(seconds["backtesting"]) * share, trades=counted["backtesting"]),
    )


def _entries(market: ScoredMarket) -> tuple[Any, Any]:
    """Return where a long and where a short is entered, at the candle after the opinion: all that peers are told."""
    rising = market.probability_up
    costs = float(2 * (POLICY.taker_fee + POLICY.slippage)) + 1e-4
    worth = np.abs(market.expected_return) > costs
    with np.errstate(invalid="ignore"):
        longs, shorts = (rising >= market.threshold) & worth, (1 - rising >= market.threshold) & worth
    return tuple(np.concatenate([np.zeros((1, one.shape[1]), bool), one[:-1]]) for one in (longs, shorts))  # type: ignore[return-value]


def _prices(market: ScoredMarket) -> Any:
    units = np.array([10.0**one.price_decimals for one in market.instruments])
    return market.prices / units[None, :, None]


def _stops(market: ScoredMarket, prices: Any) -> tuple[Any, Any]:
    """Return stop and target of each candle as fractions of its open, from the range at the candle before."""
    reach = np.concatenate([np.full((1, prices.shape[1]), np.nan), market.atr[:-1]]) / prices[:, :, 0]
    reach = np.nan_to_num(reach, nan=0.01)
    return reach * float(POLICY.stop_atr_multiple), reach * float(POLICY.target_atr_multiple)


def _vectorbt(market: ScoredMarket) -> Callable[[], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd  # noqa: PLC0415 - a peer, imported where it is raced
        import vectorbt as vbt  # noqa: PLC0415 - as above
    prices = _prices(market)
    index = pd.to_datetime(market.open_time_ms, unit="ms")
    opened, high, low, close = (pd.DataFrame(prices[:, :, column], index=index) for column in range(4))
    longs, shorts = (pd.DataFrame(one, index=index) for one in _entries(market))
    stop, target = (pd.DataFrame(one, index=index) for one in _stops(market, prices))

    def run() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = vbt.Portfolio.from_signals(
                close, entries=longs, short_entries=shorts, open=opened, high=high, low=low, price=opened,
                sl_stop=stop, tp_stop=target, size=2_000.0, size_type="value", fees=0.0005, slippage=0.00005,
                init_cash=float(BALANCE), cash_sharing=True, group_by=True, upon_opposite_entry="ignore",
                accumulate=False, freq="5min",
            )  # fmt: skip
            return len(done.order_records) // 2

    return run


def _backtesting(market: ScoredMarket, symbols: int) -> Callable[[], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd  # noqa: PLC0415 - a peer, imported where it is raced
        from backtesting import Backtest, Strategy  # noqa: PLC0415 - as above
    prices = _prices(market)
    longs, shorts = _entries(market)
    stop, target = _stops(market, prices)
    holding = POLICY.max_holding_candles

    class Follow(Strategy):  # type: ignore[misc] # it has no types
        """Enter on the mark, leave at stop, target or after the holding time."""

        def init(self) -> None:
            """Take no indicators: they are columns of the data."""

        def next(self) -> None:
            data = self.data
            for trade in self.trades:
                if len(data) - 1 - trade.entry_bar >= holding:
                    trade.close()
            if self.position or not (data.Go[-1]):
                return
            price, side = data.Close[-1], data.Go[-1]
            stop_price, target_price = price * (1 - side * data.Stop[-1]), price * (1 + side * data.Target[-1])
            enter = self.buy if side > 0 else self.sell
            enter(size=max(1, int(2_000 / price)), sl=stop_price, tp=target_price)

    index = pd.to_datetime(market.open_time_ms, unit="ms")
    frames = []
    for place in range(symbols):
        # It trades whole units: prices are brought below its money.
        frame = pd.DataFrame(prices[:, place] / prices[0, place, 0] * 100, index=index)
        frame.columns = ["Open", "High", "Low", "Close"]
        go = longs[:, place].astype(float) - shorts[:, place].astype(float)
        # Its orders fill at the next open: the mark stands one candle earlier.
        frame["Go"] = np.append(go[1:], 0.0)
        frame["Stop"], frame["Target"] = stop[:, place], target[:, place]
        frames.append(frame)

    def run() -> int:
        trades = 0
        # It draws a bar for each symbol.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            for frame in frames:
                bench = Backtest(
                    frame, Follow, cash=float(BALANCE), commission=0.0005, spread=0.0001, exclusive_orders=False,
                    finalize_trades=True,
                )  # fmt: skip
                trades += int(bench.run()["# Trades"])
        return trades

    return run
