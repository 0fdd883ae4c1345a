"""Backtests for sweeps: `replay.word` in compiled form, one pass over memory for each set of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.replay import fills, kernel
from flows.replay.fills import Rules
from flows.replay.market import Floats, Intrabar, Ints, ScoredMarket, VenueCosts
from flows.replay.metrics import TradeTable
from flows.replay.outcome import END_OF_DATA, BacktestRun, BacktestTrade
from inference.domain.decision import DenyCode
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from infra.sandbox.engine import path
from infra.sandbox.engine.instrument import bracket_for

_REASONS = (ExitReason.STOP.value, ExitReason.TARGET.value, ExitReason.TIME_BARRIER.value, END_OF_DATA)
_CODES = (
    DenyCode.DAILY_DRAWDOWN,
    DenyCode.CONFIDENCE_BELOW_THRESHOLD,
    DenyCode.EDGE_BELOW_COSTS,
    DenyCode.POSITION_OPEN,
    DenyCode.COOLDOWN,
    DenyCode.MAX_POSITIONS,
    DenyCode.EXPOSURE_ABOVE_MAXIMUM,
    DenyCode.HEAT_ABOVE_MAXIMUM,
    DenyCode.STOP_UNUSABLE,
    DenyCode.QUANTITY_BELOW_STEP,
    DenyCode.NOTIONAL_BELOW_MINIMUM,
)
_INTRABAR = {
    Intrabar.PATH: fills.PATH,
    Intrabar.PESSIMISTIC: fills.PESSIMISTIC,
    Intrabar.OPTIMISTIC: fills.OPTIMISTIC,
}
_UNIT = 100_000_000
_FIRST_TRADES = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """A run as the kernel leaves it: trades [n, 10] in ticks, steps and 1e-8, equity in 1e-8, denials by place."""

    trades: npt.NDArray[np.int64]
    equity: npt.NDArray[np.int64]
    exposure: npt.NDArray[np.float64]
    denied: npt.NDArray[np.int64]
    approved: int
    rows: int
    liquidated_ms: int


class FastEngine:
    """
    One market, prepared once and walked through as often as there are rules to try.

    Raises:
        BadInputError: An instrument's ticks and steps are finer together than the money that the venue keeps.
    """

    def __init__(self, market: ScoredMarket) -> None:
        self.market = market
        self._instruments = _instruments(market)
        # Room for trades; what one run needed the next will need as well.
        self._room = _FIRST_TRADES

    def run(
        self, policy: Policy, *, balance: Decimal, costs: VenueCosts | None = None, intrabar: Intrabar = Intrabar.PATH
    ) -> BacktestRun:
        """
        Return what `replay.word.replay` would return, to the last digit of every trade.

        Raises:
            BadInputError: The rules ask for more than fits, or than the venue allows at this leverage.
        """
        return self.read(self.simulate(policy, balance=balance, costs=costs, intrabar=intrabar))

    def simulate(
        self, policy: Policy, *, balance: Decimal, costs: VenueCosts | None = None, intrabar: Intrabar = Intrabar.PATH
    ) -> Raw:
        """
        Walk through the market once, and leave numbers as they are.

        Raises:
            BadInputError: See `run`.
        """
        market = self.market
        rules = _rules(market, policy, costs or VenueCosts(), balance, intrabar)
        self._check(rules, policy)
        while True:
            trades = np.empty((self._room, fills.TRADE_COLUMNS), np.int64)
            equity, exposure = np.empty(len(market) + 1, np.int64), np.empty(len(market) + 1)
            denied = np.zeros(kernel.DENIALS, np.int64)
            count, rows, approved, liquidated_ms = kernel.simulate(
                market.open_time_ms, market.prices, market.atr,
                market.expected_return, market.probability_up, market.funding_time_ms, market.funding_rate,
                self._instruments, rules, trades, equity, exposure, denied,
            )  # fmt: skip
            if count >= 0:
                return Raw(
                    trades[:count], equity[: rows + 1], exposure[: rows + 1], denied, approved, rows, liquidated_ms
                )
            self._room *= 4

    def read(self, raw: Raw) -> BacktestRun:
        """Return a run in decimals and words."""
        trades = sorted(
            (self._trade(row) for row in raw.trades.tolist()),
            key=lambda one: (one.closed_ms, one.symbol, one.opened_ms),
        )
        return BacktestRun(
            trades=tuple(trades),
            time_ms=self._times(raw),
            equity=raw.equity / _UNIT,
            exposure=raw.exposure,
            denied=self.denied(raw),
            approved=raw.approved,
            liquidated_ms=raw.liquidated_ms or None,
        )

    def columns(self, raw: Raw) -> tuple[TradeTable, Ints, Floats, Floats]:
        """Return what `metrics.figures` reads of a run: trades, times, equity and exposure."""
        trades = raw.trades
        place = trades[:, fills.SYMBOL]
        money = self._instruments[place, fills.VALUE_E8] / _UNIT
        entry, left = trades[:, fills.ENTRY] * money, trades[:, fills.EXIT] * money
        fees, funding = trades[:, fills.FEES] / _UNIT, trades[:, fills.FUNDING] / _UNIT
        direction = trades[:, fills.DIRECTION]
        table = TradeTable(
            net=direction * (left - entry) - fees + funding,
            fees=fees,
            funding=funding,
            notional=entry,
            exit_notional=left,
            direction=direction,
            opened_ms=trades[:, fills.OPENED],
            closed_ms=trades[:, fills.CLOSED],
        )
        return table, self._times(raw), raw.equity / _UNIT, raw.exposure

    def _times(self, raw: Raw) -> Ints:
        times = self.market.open_time_ms[: raw.rows]
        return np.append(times, times[-1] + self.market.timeframe_ms)

    @staticmethod
    def denied(raw: Raw) -> Mapping[str, int]:
        """Return how many candidates were denied, by code."""
        return {code.value: int(count) for code, count in zip(_CODES, raw.denied, strict=True) if count}

    def _trade(self, row: list[int]) -> BacktestTrade:
        instrument = self.market.instruments[row[fills.SYMBOL]]
        exponent = -(instrument.price_decimals + instrument.quantity_decimals)
        entry, left = Decimal(row[fills.ENTRY]).scaleb(exponent), Decimal(row[fills.EXIT]).scaleb(exponent)
        quantity = instrument.quantity(row[fills.QUANTITY])
        fees = Decimal(row[fills.FEES]).scaleb(-8)
        return BacktestTrade(
            symbol=instrument.symbol,
            direction=Direction.LONG if row[fills.DIRECTION] > 0 else Direction.SHORT,
            reason=_REASONS[row[fills.REASON]],
            quantity=quantity,
            entry_price=entry / quantity,
            exit_price=left / quantity,
            pnl=row[fills.DIRECTION] * (left - entry) - fees,
            fees=fees,
            funding=Decimal(row[fills.FUNDING]).scaleb(-8),
            opened_ms=row[fills.OPENED],
            closed_ms=row[fills.CLOSED],
        )

    def _check(self, rules: Rules, policy: Policy) -> None:
        # The dearest product that the kernel makes of whole numbers must fit 63 bits.
        largest = 4 * float(policy.max_notional) * float(_UNIT) * max(rules.fee_e8, self._largest_rate(), 1)
        if largest >= 2.0**63 or rules.balance_e8 >= 2**60:
            raise BadInputError(
                f"max_notional {policy.max_notional} is more than the sweep engine counts exactly; "
                "choose less, or replay it with --engine word"
            )
        depth = min(float(one.depth_notional) for one in self.market.instruments)
        tier = bracket_for(2 * policy.max_notional)
        if float(policy.max_notional) > 50 * depth or policy.leverage > tier.initial_leverage:
            raise BadInputError(
                f"max_notional {policy.max_notional} at leverage {policy.leverage} is more than the venue's book holds "
                f"or its tiers allow (at most {tier.initial_leverage}); choose less"
            )

    def _largest_rate(self) -> int:
        rates = self.market.funding_rate
        return int(np.abs(rates).max()) if rates.size else 0


def _instruments(market: ScoredMarket) -> npt.NDArray[np.int64]:
    digits = [one.price_decimals + one.quantity_decimals for one in market.instruments]
    for one, fine in zip(market.instruments, digits, strict=True):
        if fine > 8:
            raise BadInputError(
                f"{one.symbol} has ticks of {one.tick} and steps of {one.step}, finer together than money is kept; "
                "leave it out, or replay with --engine word"
            )

    return np.array(
        [
            [
                10**one.price_decimals,
                10**one.quantity_decimals,
                10 ** (8 - fine),
                int(one.min_notional * _UNIT),
                int(min(one.max_quantity, one.max_market_quantity) / one.step),
                int(one.depth_notional),
            ]
            for one, fine in zip(market.instruments, digits, strict=True)
        ],
        np.int64,
    )


def _rules(market: ScoredMarket, policy: Policy, costs: VenueCosts, balance: Decimal, intrabar: Intrabar) -> Rules:
    threshold = market.threshold if policy.confidence_threshold is None else policy.confidence_threshold
    return Rules(
        threshold=float(threshold),
        stop_multiple=float(policy.stop_atr_multiple),
        target_multiple=float(policy.target_atr_multiple),
        risk_per_trade=float(policy.risk_per_trade),
        min_notional=float(policy.min_notional),
        max_notional=float(policy.max_notional),
        max_exposure=float(policy.max_exposure),
        max_heat=float(policy.max_portfolio_heat),
        max_drawdown=float(policy.max_daily_drawdown),
        side_costs=float(policy.taker_fee + policy.slippage),
        slippage=float(policy.slippage),
        leverage=float(policy.leverage),
        cooldown_ms=policy.cooldown_seconds * 1000,
        holding_ms=policy.max_holding_candles * market.timeframe_ms,
        max_positions=policy.max_positions,
        intrabar=_INTRABAR[intrabar],
        fee_e8=_whole(costs.taker_fee, _UNIT, "taker_fee"),
        spread_e4=_whole(costs.spread_bps, 10_000, "spread_bps"),
        gap_e4=_whole(costs.gap_bps, 10_000, "gap_bps"),
        balance_e8=_whole(balance, _UNIT, "balance"),
        timeframe_ms=market.timeframe_ms,
        steps=market.timeframe_ms // path.STEP_MS,
    )


def _whole(value: Decimal, units: int, name: str) -> int:
    whole = value * units
    if whole != whole.to_integral_value():
        raise BadInputError(f"{name} {value} is finer than the venue counts; round it")
    return int(whole)
