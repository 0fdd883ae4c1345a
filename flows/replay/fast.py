"""Backtests for sweeps: `replay.word` in compiled form, one pass over memory for each set of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.replay import compiled_entry, fills, kernel, resting
from flows.replay.compiled_exits import ExitRules, exit_rules
from flows.replay.fills import Rules
from flows.replay.market import Floats, Intrabar, Ints, ScoredMarket, VenueCosts
from flows.replay.metrics import TradeTable
from flows.replay.outcome import END_OF_DATA, BacktestRun, BacktestTrade
from inference.domain.decision import DenyCode
from inference.domain.exit_profile import BUILT_IN, ExitProfile, barriers_profile
from inference.domain.policy import BARRIERS, EntryStyle, Policy
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.policy.exit_profiles import usable_exit_profile
from infra.sandbox.engine import path
from infra.sandbox.engine.instrument import bracket_for

_REASONS = (
    ExitReason.STOP.value,
    ExitReason.TARGET.value,
    ExitReason.TIME_BARRIER.value,
    END_OF_DATA,
    ExitReason.EMERGENCY.value,
    ExitReason.BREAK_EVEN.value,
    ExitReason.TRAILING_STOP.value,
    ExitReason.LIQUIDATION_BUFFER.value,
)
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
    DenyCode.EMERGENCY_STOP,
    DenyCode.WEEKLY_DRAWDOWN,
    DenyCode.CONCENTRATION_ABOVE_MAXIMUM,
    DenyCode.LIQUIDATION_TOO_NEAR,
    DenyCode.VETO_CONFIDENCE,
    DenyCode.VETO_VOLATILITY,
    DenyCode.VETO_DRAWDOWN,
    DenyCode.NO_EDGE_TO_BET,
)
_INTRABAR = {
    Intrabar.PATH: fills.PATH,
    Intrabar.PESSIMISTIC: fills.PESSIMISTIC,
    Intrabar.OPTIMISTIC: fills.OPTIMISTIC,
}
_STYLES = {
    EntryStyle.MARKET: resting.MARKET,
    EntryStyle.LIMIT: resting.LIMIT,
    EntryStyle.POST_ONLY: resting.POST_ONLY,
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
    stopped_ms: int


# They need the times of all entries and losses, how returns move together, or regimes, which the kernel does not keep.
_UNKNOWN_RULES = frozenset(
    {
        "allowed_symbols",
        "denied_symbols",
        "trading_windows",
        "days_off",
        "global_cooldown_seconds",
        "loss_cooldown_seconds",
        "max_entries_per_hour",
        "max_entries_per_day",
        "max_symbol_entries_per_hour",
        "max_symbol_entries_per_day",
        "max_correlated_exposure",
        "max_btc_beta",
        "governor_max_companions",
        "breaker_losses",
        "breaker_loss_share",
        "breaker_errors",
        "ranking",
        "companion_factor",
        "regime_sizes",
        "regime_thresholds",
    }
)


class FastEngine:
    """
    One market, prepared once and walked through as often as there are rules to try.

    Raises:
        BadInputError: An instrument's ticks and steps are finer together than the money that the venue keeps.
    """

    def __init__(self, market: ScoredMarket) -> None:
        self.market = market
        # One symbol's candles side by side: a position is looked at candle by candle.
        self._prices = np.ascontiguousarray(market.prices.transpose(1, 0, 2))
        self._instruments = _instruments(market)
        # Room for trades; what one run needed the next will need as well.
        self._room = _FIRST_TRADES

    def run(
        self,
        policy: Policy,
        *,
        balance: Decimal,
        costs: VenueCosts | None = None,
        intrabar: Intrabar = Intrabar.PATH,
        exits: Mapping[str, ExitProfile] = BUILT_IN,
    ) -> BacktestRun:
        """
        Return what `replay.word.replay` would return, to the last digit of every trade.

        Raises:
            BadInputError: The rules ask for more than fits, or than the venue allows at this leverage.
        """
        return self.read(self.simulate(policy, balance=balance, costs=costs, intrabar=intrabar, exits=exits))

    def simulate(
        self,
        policy: Policy,
        *,
        balance: Decimal,
        costs: VenueCosts | None = None,
        intrabar: Intrabar = Intrabar.PATH,
        exits: Mapping[str, ExitProfile] = BUILT_IN,
    ) -> Raw:
        """
        Walk through the market once, and leave numbers as they are.

        Raises:
            BadInputError: See `run`.
        """
        market = self.market
        rules = _rules(market, policy, costs or VenueCosts(), balance, intrabar)
        self._check(rules, policy)
        profile = usable_exit_profile(policy, exits)
        while True:
            trades = np.empty((self._room, fills.TRADE_COLUMNS), np.int64)
            equity, exposure = np.empty(len(market) + 1, np.int64), np.empty(len(market) + 1)
            denied = np.zeros(compiled_entry.DENIALS, np.int64)
            count, rows, approved, liquidated_ms, stopped_ms = kernel.simulate(
                market.open_time_ms, self._prices, market.atr,
                market.expected_return, market.probability_up, market.funding_time_ms, market.funding_rate,
                self._instruments, rules, trades, equity, exposure, denied,
                profile is not None, exit_rules_of(profile, policy, market.timeframe_ms),
            )  # fmt: skip
            if count >= 0:
                return Raw(
                    trades[:count], equity[: rows + 1], exposure[: rows + 1], denied, approved, rows, liquidated_ms,
                    stopped_ms,
                )  # fmt: skip
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
            stopped_ms=raw.stopped_ms or None,
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
        if unknown := sorted(_UNKNOWN_RULES.intersection(policy.stated())):
            raise BadInputError(
                f"The sweep engine does not know {', '.join(unknown)}; leave it out, or replay with --engine word"
            )
        if self.market.regimes is not None and policy.unknown_regime_size != 1:
            raise BadInputError(
                "The sweep engine takes every regime for unknown, so that unknown_regime_size would count everywhere; "
                "leave it out, or replay with --engine word"
            )
        # The dearest product that the kernel makes of whole numbers must fit 63 bits.
        rate = max(rules.fee_e8, rules.maker_e8, self._largest_rate(), 1)
        largest = 4 * float(policy.max_notional) * float(_UNIT) * rate
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
        if policy.entry_style is not EntryStyle.MARKET:
            if policy.exit_profile != BARRIERS:
                raise BadInputError(
                    f"The sweep engine does not know exit_profile {policy.exit_profile} where entries rest; let them "
                    "be at market, or replay it with --engine word"
                )
            _check_resting(rules, policy)

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


def _check_resting(rules: Rules, policy: Policy) -> None:
    if rules.spread_e4 == 0:
        # An order at the touch would take, in part perhaps, and rest with what is left.
        raise BadInputError(
            f"entry_style {policy.entry_style} needs a spread to rest in, was 0; choose more, or replay it with "
            "--engine word"
        )
    longest = (rules.steps - 1) * path.STEP_MS // 1000
    if rules.patience_ms > longest * 1000:
        raise BadInputError(
            f"entry_patience_seconds {policy.entry_patience_seconds} lets an entry rest beyond its candle, and the "
            f"sweep engine ends each inside it; choose {longest} at most, or replay it with --engine word"
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
        max_weekly_drawdown=float(policy.max_weekly_drawdown),
        daily_wall=float(policy.wall_daily_drawdown),
        weekly_wall=float(policy.wall_weekly_drawdown),
        peak_wall=float(policy.wall_peak_drawdown),
        reduce_share=float(policy.emergency_reduce_share),
        min_risk=float(policy.min_risk_per_trade),
        max_risk=float(policy.max_risk_per_trade),
        min_multiplier=float(policy.min_size_multiplier),
        max_multiplier=float(policy.max_size_multiplier),
        target_volatility=_limit(policy.target_volatility),
        unknown_size=float(policy.unknown_regime_size),
        kelly_fraction=-1.0 if policy.kelly_fraction is None else float(policy.kelly_fraction),
        max_concentration=_limit(policy.max_concentration),
        min_liquidation_stops=float(policy.min_liquidation_stops),
        maintenance_margin=float(policy.maintenance_margin),
        governor_confidence=policy.governor_min_confidence,
        governor_volatility=_limit(policy.governor_max_volatility),
        governor_drawdown=_limit(policy.governor_drawdown_share),
        side_costs=float(policy.taker_fee + policy.slippage),
        slippage=float(policy.slippage),
        leverage=float(policy.leverage),
        cooldown_ms=policy.cooldown_seconds * 1000,
        holding_ms=policy.max_holding_candles * market.timeframe_ms,
        max_positions=policy.max_positions,
        intrabar=_INTRABAR[intrabar],
        style=_STYLES[policy.entry_style],
        patience_ms=policy.entry_patience_seconds * 1000,
        fee_e8=_whole(costs.taker_fee, _UNIT, "taker_fee"),
        maker_e8=_whole(costs.maker_fee, _UNIT, "maker_fee"),
        spread_e4=_whole(costs.spread_bps, 10_000, "spread_bps"),
        gap_e4=_whole(costs.gap_bps, 10_000, "gap_bps"),
        balance_e8=_whole(balance, _UNIT, "balance"),
        timeframe_ms=market.timeframe_ms,
        steps=market.timeframe_ms // path.STEP_MS,
    )


def exit_rules_of(profile: ExitProfile | None, policy: Policy, timeframe_ms: int) -> ExitRules:
    """Return an exit profile as the kernel reads it, that of the barriers where there is none."""
    return exit_rules(
        barriers_profile(policy) if profile is None else profile,
        fee=Decimal(0) if profile is None else policy.taker_fee,
        timeframe_ms=timeframe_ms,
        horizon_candles=policy.max_holding_candles,
    )


def _limit(value: Decimal | None) -> float:
    return float("inf") if value is None else float(value)


def _whole(value: Decimal, units: int, name: str) -> int:
    whole = value * units
    if whole != whole.to_integral_value():
        raise BadInputError(f"{name} {value} is finer than the venue counts; round it")
    return int(whole)
