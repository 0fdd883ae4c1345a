"""The same strategy and candles in process: features, model, decisions and matching engine, without a wire between."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.candle import Timeframe
from feature_store.extensions.live import live_features
from feature_store.extensions.settings import ViewSettings
from feature_store.features.digests import unpack_facts
from flows.replay.fast import FastEngine
from flows.replay.market import Intrabar, Opinions, ScoredMarket, VenueCosts
from flows.replay.word import _Walk  # The engine itself is looked at, which a backtest's result does not show.
from inference.domain.decision import Approved
from inference.domain.events import FeaturesUsed
from inference.domain.policy import Policy
from inference.domain.signal import Direction, SignalScore
from inference.domain.trade import ExitReason
from inference.feed.batches import CandleBatch
from inference.feed.followed import FollowedFeatures, LastRow
from inference.feed.rebuilding import Behind
from inference.models.bundle import Bundle
from inference.models.followed_regimes import FollowedRegimes
from inference.models.opinions import opinions
from infra.prove.record import native
from infra.prove.wire_candles import STEP_MS, WireCandles
from infra.sandbox.engine import funding
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.protocol import shapes

VERSION = "local"
BALANCE = Decimal(10_000)
# A narrow one: what this model expects of quiet markets is little, and no trade proves nothing.
COSTS = VenueCosts(spread_bps=Decimal("0.1"))


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What the model says of a symbol at a close, and the newest candle behind it."""

    signal: SignalScore
    row: LastRow


def first_candle_ms(used: FeaturesUsed) -> int:
    """Return the open time of the first candle that a worker's features were made from."""
    facts = unpack_facts(used.facts, len(used.symbols))
    return int(facts["first_open_time_ms"].min())


def regimes_of(bundle: Bundle) -> FollowedRegimes | None:
    """Return what tells regimes by a bundle's model, as the worker does; None where it has none."""
    manifest = bundle.manifest
    if manifest.regime_model is None:
        return None
    return FollowedRegimes(manifest.regime_model, manifest.model_inputs, step_ms=STEP_MS)


def said_of(
    candles: WireCandles, bundle: Bundle, closes_ms: list[int], *, first_ms: int, venue: str
) -> dict[tuple[int, str], Said]:
    """Return the model's opinions at these closes, which follow each other, by close and symbol."""
    blocks = {unified(name): block.since(first_ms) for name, block in candles.blocks.items()}
    features = live_features(tuple(blocks), Timeframe.M5, ViewSettings.of().view())
    for symbol, block in blocks.items():
        features.advance(symbol, block.until(closes_ms[0] - STEP_MS))
    followed = FollowedFeatures(features)
    regimes = regimes_of(bundle)
    found: dict[tuple[int, str], Said] = {}
    for close_ms in closes_ms:
        now = {symbol: block.since(close_ms - STEP_MS).until(close_ms) for symbol, block in blocks.items()}
        known = followed.advance(CandleBatch(close_ms, now, late=()), Behind())
        said = opinions(bundle, VERSION, known.latest, known.ready, venue=venue, timeframe_ms=STEP_MS, regimes=regimes)
        for signal in said:
            found[close_ms, signal.symbol] = Said(signal, followed.rows[signal.symbol])
    return found


def market_of(
    candles: WireCandles, said: dict[tuple[int, str], Said], *, threshold: float, seed: int, until_ms: int
) -> ScoredMarket:
    """Return the candles from the first close with an opinion on, with these opinions and the exchange's funding."""
    names = {unified(name): name for name in candles.blocks}
    count = len(next(iter(candles.blocks.values())))
    first_ms = int(next(iter(candles.blocks.values())).open_time_ms[0])
    atr = {symbol: np.full(count, np.nan) for symbol in names}
    rows: dict[str, list[tuple[int, float, float]]] = {symbol: [] for symbol in names}
    for (close_ms, symbol), one in said.items():
        rising = one.signal.probability
        rising = rising if one.signal.direction is Direction.LONG else 1 - rising
        rows[symbol].append((close_ms - STEP_MS, one.signal.expected_return, rising))
        atr[symbol][(close_ms - STEP_MS - first_ms) // STEP_MS] = one.row.atr
    begins_ms = min(close_ms for close_ms, _ in said)
    return ScoredMarket.of(
        {symbol: candles.blocks[name] for symbol, name in names.items()},
        atr=atr,
        opinions={
            symbol: Opinions(*(np.array(column) for column in zip(*given, strict=True)))
            for symbol, given in rows.items()
            if given
        },
        timeframe_ms=STEP_MS,
        threshold=threshold,
        model_version=VERSION,
        funding=funding_of(candles, seed=seed, from_ms=begins_ms, until_ms=until_ms),
    ).between(begins_ms - STEP_MS, until_ms)


def funding_of(
    candles: WireCandles, *, seed: int, from_ms: int, until_ms: int
) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Return the times and rates of funding of an exchange with that seed, by unified symbol."""
    boundaries = np.arange(funding.next_boundary(from_ms - 1), until_ms, funding.INTERVAL_MS, dtype=np.int64)
    return {
        unified(name): (boundaries, np.array([float(funding.rate_at(seed, name, int(at))) for at in boundaries]))
        for name in candles.blocks
    }


@dataclass(frozen=True, slots=True)
class Replayed:
    """The engine's own record, in the words of the venue."""

    orders: list[dict[str, Any]]
    algos: list[dict[str, Any]]
    fills: list[dict[str, Any]]
    funding: list[dict[str, Any]]


class Watched(_Walk):
    """A replay whose engine can be read, and whose orders to execution are kept in `asked`, by time."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.asked: list[tuple[int, Approved | tuple[str, ExitReason]]] = []
        enter, leave = self._execution.enter, self._execution.leave

        def entering(approved: Approved, *, now_ms: int) -> None:
            self.asked.append((now_ms, approved))
            enter(approved, now_ms=now_ms)

        def leaving(symbol: str, reason: ExitReason, *, now_ms: int) -> None:
            self.asked.append((now_ms, (symbol, reason)))
            leave(symbol, reason, now_ms=now_ms)

        self._execution.enter, self._execution.leave = entering, leaving  # type: ignore[method-assign] # listened to

    @property
    def exchange(self) -> Exchange:
        """The engine."""
        return self._exchange


def replayed(market: ScoredMarket, policy: Policy) -> tuple[Replayed, bool]:
    """Trade a market in process; return what the engine did, and whether the compiled engine makes the same trades."""
    return recorded_by(walked(market, policy), market, policy)


def walked(market: ScoredMarket, policy: Policy) -> Watched:
    """Trade a market in process, and return who did."""
    walk = Watched(market, policy, balance=BALANCE, costs=COSTS, intrabar=Intrabar.PATH)
    for row in range(1, len(market)):
        if not walk.candle(row):
            break
    return walk


def recorded_by(walk: Watched, market: ScoredMarket, policy: Policy) -> tuple[Replayed, bool]:
    """Return what an engine did, and whether the compiled one makes the same trades of its market."""
    state = walk.exchange.state
    found = Replayed(
        orders=[shapes.order(one) for one in state.orders.values()],
        algos=[shapes.algo(one, state.orders.get(one.order_id)) for one in state.algos.values()],
        fills=[shapes.trade(one) for one in state.trades],
        funding=[
            {"symbol": one.symbol, "income": shapes.text(one.amount), "time": one.time_ms}
            for one in state.incomes
            if one.kind == "FUNDING_FEE"
        ],
    )
    for rows in (found.orders, found.algos, found.fills, found.funding):
        for one in rows:
            one["symbol"] = native(str(one["symbol"]))
    return found, FastEngine(market).run(policy, balance=BALANCE, costs=COSTS).trades == walk.end().trades


def unified(name: str) -> str:
    """Return the symbol as ccxt names it."""
    return f"{name.removesuffix('USDT')}/USDT:USDT"
