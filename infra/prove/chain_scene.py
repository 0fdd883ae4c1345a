"""A candle on which every rule of the decision chain is asked, and none is off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from inference.domain.bias import BiasMode
from inference.domain.decision import Approved, Candidate, Decision, DenyCode, RecentTrades, Snapshot, TradingState
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.signal import Direction
from inference.governance.briefing import Briefing, Model, Record
from inference.governance.charter import Charter
from inference.supervision.committee_watch import CommitteeWatch, volatility_of
from inference.supervision.risk_watch import RiskWatch
from infra.prove.clock_market import instruments_of

OPEN, ENTERING, RECENT = 10, 3, 3
"""Positions, entries in flight, and entries of each symbol within a day: 300 of a hundred symbols in all."""
_WIDE, _MANY = Decimal(1000), 100_000
_EXPECTED, _SURE = 0.05, 0.9
_HOUR_MS = 3_600_000
_BEFORE_LIMITS = frozenset(
    {
        DenyCode.EMERGENCY_STOP, DenyCode.TRADING_STATE, DenyCode.BREAKER_OPEN, DenyCode.RISK_INPUT_MISSING,
        DenyCode.DAILY_DRAWDOWN, DenyCode.WEEKLY_DRAWDOWN, DenyCode.PEAK_DRAWDOWN, DenyCode.NO_QUOTE,
        DenyCode.STALE_DATA, DenyCode.FEATURES_INCOMPLETE, DenyCode.CONFIDENCE_BELOW_THRESHOLD, DenyCode.SIGNAL_QUALITY,
        DenyCode.EDGE_BELOW_COSTS, DenyCode.COMMITTEE_VETO, DenyCode.OUTSIDE_TRADING_WINDOW,
        DenyCode.SYMBOL_NOT_ALLOWED, DenyCode.POSITION_OPEN, DenyCode.COOLDOWN, DenyCode.LOSS_COOLDOWN,
    }
)  # fmt: skip


def full_policy(symbols: Sequence[str]) -> Policy:
    """Return rules of which none is off: those that are on by default as they are, the others as people set them."""
    return Policy(
        confidence_threshold=0.5,
        allowed_symbols=tuple(symbols),
        denied_symbols=("NOBODY/USDT:USDT",),
        max_size_multiplier=Decimal("1.5"),
        kelly_fraction=Decimal("0.5"),
        target_volatility=Decimal("0.01"),
        unknown_regime_size=Decimal("0.5"),
        max_correlated_exposure=Decimal(1),
        max_btc_beta=Decimal(1),
        max_concentration=Decimal("0.5"),
        governor_drawdown_share=Decimal(1),
        governor_max_volatility=Decimal("0.05"),
        governor_max_companions=5,
        breaker_losses=5,
        trading_windows=("mon-fri 00:00-24:00", "sat-sun 00:00-24:00"),
        days_off=("1999-12-31",),
        loss_cooldown_seconds=600,
        max_entries_per_hour=150,
        max_entries_per_day=1000,
        max_symbol_entries_per_hour=5,
        max_symbol_entries_per_day=20,
        committee_mode=BiasMode.ENFORCE,
    )


def unhindered(policy: Policy) -> Policy:
    """Return the same rules with limits so wide that whatever has no position yet is asked everything, to its size."""
    return replace(
        policy,
        max_positions=500,
        min_notional=Decimal(5),
        max_exposure=_WIDE,
        max_portfolio_heat=_WIDE,
        leverage=1,
        min_liquidation_stops=Decimal(1),
        max_correlated_exposure=_WIDE,
        max_btc_beta=_WIDE,
        max_concentration=_WIDE,
        governor_max_volatility=Decimal(1),
        governor_max_companions=500,
        max_entries_per_hour=_MANY,
        max_entries_per_day=_MANY,
        max_symbol_entries_per_hour=_MANY,
        max_symbol_entries_per_day=_MANY,
    )


def sure_of_themselves(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates that no rule about confidence or costs ends, on the side that the model took."""
    return tuple(
        replace(
            one,
            signal=replace(
                one.signal,
                direction=Direction.SHORT if one.signal.expected_return < 0 else Direction.LONG,
                probability=_SURE,
                expected_return=-_EXPECTED if one.signal.expected_return < 0 else _EXPECTED,
            ),
        )
        for one in candidates
    )


@dataclass(slots=True)
class Desk:
    """An account with positions, entries in flight and a day of trades behind it; asks everything that there is."""

    policy: Policy
    instruments: Mapping[str, Instrument]
    positions: Mapping[str, Position]
    in_flight: Mapping[str, Decimal]
    heat: Mapping[str, Decimal]
    risk: RiskWatch
    committee: CommitteeWatch
    account: Account

    @classmethod
    def of(cls, closes: Mapping[str, float], risk: RiskWatch, policy: Policy, *, opened_ms: int) -> Desk:
        """Return a desk that holds the first symbols, and is entering the next ones, under a policy."""
        symbols = tuple(closes)
        held, entering = symbols[:OPEN], symbols[OPEN : OPEN + ENTERING]
        positions = {
            symbol: Position(
                symbol=symbol,
                direction=Direction.LONG if number % 2 else Direction.SHORT,
                quantity=Decimal(1),
                entry_price=Decimal(str(round(closes[symbol], 2))),
                entry_time_ms=opened_ms,
                trade_id=f"trade-{number}",
            )
            for number, symbol in enumerate(held)
        }
        # So wide a charter that the committee's caps are worked out and refuse little.
        charter = Charter(spread=Decimal(1000))
        return cls(
            policy=policy,
            instruments=instruments_of(symbols),
            positions=positions,
            in_flight=dict.fromkeys(entering, Decimal(100)),
            heat=dict.fromkeys((*held, *entering), Decimal(20)),
            risk=risk,
            committee=CommitteeWatch(lambda _kind, _detail: None, charter),
            account=Account(
                equity=Decimal(10_000),
                day_start_equity=Decimal(10_020),
                peak_equity=Decimal(10_050),
                week_start_equity=Decimal(10_040),
            ),
        )

    def snapshot(
        self, candidates: tuple[Candidate, ...], quotes: Mapping[str, Quote], *, close_ms: int, step_ms: int
    ) -> Snapshot:
        """Return all that a decision may look at, put together as the worker does it at a closed candle."""
        briefing = Briefing(
            policy=self.policy,
            account=self.account,
            positions=self.positions,
            in_flight=self.in_flight,
            volatility=volatility_of(candidates),
            regimes={one.signal.symbol: one.signal.regime for one in candidates},
            real_money=False,
            record=Record(is_whole=True, unsynced=3, reproduced=None),
            model=Model(gated=True, is_poor=False, is_biased=False),
        )
        return Snapshot(
            candle_close_ms=close_ms,
            trading_state=TradingState.ACTIVE,
            account=self.account,
            candidates=candidates,
            positions=self.positions,
            in_flight=self.in_flight,
            heat=self.heat,
            instruments=self.instruments,
            quotes=quotes,
            last_entry_ms=dict.fromkeys(self.instruments, close_ms - _HOUR_MS),
            timeframe_ms=step_ms,
            risk=self.risk.view(close_ms, close_ms),
            recent=self._recent(close_ms),
            resolution=self.committee.attend(briefing),
        )

    def _recent(self, now_ms: int) -> RecentTrades:
        entered = tuple(now_ms - number * _HOUR_MS for number in range(RECENT, 0, -1))
        return RecentTrades(
            entered_ms=dict.fromkeys(self.instruments, entered),
            lost_ms=dict.fromkeys(self.instruments, now_ms - _HOUR_MS),
        )


def met_the_limits(decision: Decision) -> bool:
    """Whether a candidate came as far as counts, slots and what the account carries, and was not ended before."""
    return isinstance(decision, Approved) or decision.code not in _BEFORE_LIMITS
