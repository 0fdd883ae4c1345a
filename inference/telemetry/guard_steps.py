"""The decision chain asked again, step by step: what each guard found, what it asks for, and whether it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from msgspec import UnsetType

from inference.decision import (
    EntryPrices,
    confidence_refusal,
    edge_refusal,
    entry_prices,
    expected_net_edge,
    round_trip_costs,
    share_at_risk,
    size_of,
    smallest_notional,
    staleness_refusal,
    threshold_of,
)
from inference.domain.bias import BiasMode, SignalBias
from inference.domain.decision import Candidate, DenyCode, Snapshot
from inference.domain.governance import Resolution
from inference.domain.policy import Policy
from inference.domain.regime_rules import figures_of
from inference.domain.risk import BreakerState, RiskView
from inference.domain.signal import Direction, SignalScore
from inference.domain.trading_window import moment_text
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.bias import bias_refusal
from inference.risk.breaker import breaker_refusal
from inference.risk.committee import committee_budget, committee_cap, committee_refusal
from inference.risk.constraints import HOUR_MS, EntryCounts, constraint_refusal, cooldowns, entry_counts
from inference.risk.governor import governor_inputs, governor_veto, size_veto
from inference.risk.limits import emergency_refusal, is_solvent, trading_state_refusal
from inference.risk.quality import quality_refusal
from inference.risk.refusal import Refusal
from inference.risk.regime import regime_refusal
from inference.risk.sizing import Size
from inference.risk.tiers import (
    beta_with,
    carried_by_cluster,
    liquidation_price,
    portfolio_refusal,
    position_refusal,
    systemic_refusal,
)

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """One guard: what was found, and what it asks for, as text."""

    name: str
    found: str
    asked: str

    @classmethod
    def refused(cls, code: DenyCode, context: Mapping[str, str]) -> Guard:
        """Return the guard that refused, with the numbers that it compared."""
        return cls(name=code.value, found=", ".join(f"{name} {value}" for name, value in context.items()),
                   asked="refused")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One candidate as its turn came: `load` holds what was approved before it of the same candle."""

    candidate: Candidate
    snapshot: Snapshot
    policy: Policy
    load: PortfolioLoad
    now_ms: int

    @property
    def signal(self) -> SignalScore:
        """The candidate's signal."""
        return self.candidate.signal

    @property
    def risk(self) -> RiskView | None:
        """The view of risk; None where the snapshot has none, and its guards are not asked."""
        return None if isinstance(self.snapshot.risk, UnsetType) else self.snapshot.risk


@dataclass(frozen=True, slots=True)
class Row:
    """One guard of a step; `mark` tells it from another of the same name, as its refusal's numbers do."""

    guard: Guard
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What one function of the chain says, and its guards in the order in which it looks at them."""

    refusal: Refusal | None
    rows: tuple[Row, ...]

    @property
    def passed(self) -> tuple[Guard, ...]:
        """The guards that were passed: all of them, or those before the one that refused."""
        guards = tuple(one.guard for one in self.rows)
        if self.refusal is None:
            return guards
        context = self.refusal.context
        place = self.refusal.code.value, context.get("period_ms", context.get("of", ""))
        places = [(one.guard.name, one.mark) for one in self.rows]
        return guards[: places.index(place)] if place in places else guards


def steps(turn: Turn) -> Iterator[Step]:
    """
    Yield the steps of the chain in its order, as `inference.decision.decide` takes them.

    What follows a refusal was not asked, and may not be asked for here either.
    """
    yield from _of_the_account(turn)
    yield from _of_the_signal(turn)
    symbol, snapshot, policy = turn.signal.symbol, turn.snapshot, turn.policy
    counts = EntryCounts.of(snapshot, policy, turn.now_ms)
    asked = constraint_refusal(
        symbol, snapshot=snapshot, load=turn.load, policy=policy, now_ms=turn.now_ms, counts=counts
    )
    yield Step(asked, tuple(_constraint_rows(turn, counts)))
    yield from _of_the_size(turn)


def _of_the_account(turn: Turn) -> Iterator[Step]:
    snapshot, policy, account, risk = turn.snapshot, turn.policy, turn.snapshot.account, turn.risk
    if risk is not None:
        yield Step(
            emergency_refusal(snapshot),
            (
                _row(DenyCode.EMERGENCY_STOP, risk.emergency or "none", "none latched"),
                _row(DenyCode.RISK_INPUT_MISSING, risk.missing or "none", "no input that is missing"),
            ),
        )
    state = _row(DenyCode.TRADING_STATE, snapshot.trading_state.value, "ACTIVE")
    yield Step(trading_state_refusal(snapshot.trading_state), (state,))
    if risk is not None:
        refusal = breaker_refusal(snapshot, entries=turn.load.entries, now_ms=turn.now_ms)
        yield Step(refusal, (_row(DenyCode.BREAKER_OPEN, _breaker_text(turn, risk), "CLOSED, or one entry to try"),))
    daily = account.daily_drawdown if is_solvent(account) else Decimal(1)
    falls = [(DenyCode.DAILY_DRAWDOWN, daily, policy.max_daily_drawdown)]
    if account.weekly_drawdown is not None:
        falls.append((DenyCode.WEEKLY_DRAWDOWN, account.weekly_drawdown, policy.max_weekly_drawdown))
    if risk is not None:
        falls.append((DenyCode.PEAK_DRAWDOWN, account.peak_drawdown, policy.wall_peak_drawdown))
    rows = tuple(_row(code, _share(fall), f"below {_share(maximum)}") for code, fall, maximum in falls)
    yield Step(systemic_refusal(snapshot, policy), rows)


def _breaker_text(turn: Turn, risk: RiskView) -> str:
    breaker = risk.breaker
    if breaker is None or breaker.state is BreakerState.CLOSED:
        return BreakerState.CLOSED.value
    tried = "one tried" if breaker.is_tried else f"{turn.load.entries} entered to try"
    return f"{breaker.state.value} until {moment_text(breaker.until_ms)}, {tried}"


def _of_the_signal(turn: Turn) -> Iterator[Step]:
    candidate, snapshot, policy, signal = turn.candidate, turn.snapshot, turn.policy, turn.signal
    quote, limit_ms = snapshot.quotes.get(signal.symbol), policy.stale_after_candles * snapshot.timeframe_ms
    quoted = "none" if quote is None else f"{quote.bid}/{quote.ask}"
    age_ms = 0 if quote is None else turn.now_ms - quote.event_time_ms
    old = f"features {turn.now_ms - signal.feature_time_ms} ms, quote {age_ms} ms old"
    yield Step(
        staleness_refusal(candidate, snapshot, policy, turn.now_ms),
        (
            _row(DenyCode.NO_QUOTE, quoted, "0 < bid <= ask, and an instrument that is known"),
            _row(DenyCode.STALE_DATA, old, f"at most {limit_ms} ms, features of this candle"),
        ),
    )
    sure, least = f"{signal.confidence:.4f}", f"at least {float(threshold_of(candidate, policy)):.4f}"
    yield Step(confidence_refusal(candidate, policy), (_row(DenyCode.CONFIDENCE_BELOW_THRESHOLD, sure, least),))
    regime_least = figures_of(policy.regime_thresholds).get(signal.regime)
    if regime_least is not None:
        row = _row(
            DenyCode.CONFIDENCE_BELOW_THRESHOLD, f"{sure} in {signal.regime}", f"at least {regime_least:.4f} there"
        )
        yield Step(regime_refusal(signal, policy), (row,))
    if policy.quality_mode is BiasMode.ENFORCE and not isinstance(signal.quality, UnsetType):
        flags = ", ".join(one.code.value for one in signal.quality) or "none"
        refusing = ", ".join(policy.refusing_flags) or "none refuses"
        yield Step(quality_refusal(signal, policy), (_row(DenyCode.SIGNAL_QUALITY, flags, f"none of {refusing}"),))
    edge, costs = expected_net_edge(candidate, quote, policy), round_trip_costs(quote, policy)
    earned = _row(
        DenyCode.EDGE_BELOW_COSTS, _share(edge + costs), f"above {_share(costs)} of costs: net {_share(edge)}"
    )
    yield Step(edge_refusal(candidate, snapshot, policy), (earned,))
    if isinstance(snapshot.bias, SignalBias):
        yield Step(bias_refusal(signal, snapshot), (_bias_row(snapshot.bias),))
    if isinstance(snapshot.resolution, Resolution):
        found = f"stance {snapshot.resolution.stance.value}, {snapshot.resolution.veto_of(signal.symbol) or 'no veto'}"
        row = _row(DenyCode.COMMITTEE_VETO, found, "another stance than EXITS_ONLY, and no veto")
        yield Step(committee_refusal(signal.symbol, snapshot), (row,))


def _bias_row(bias: SignalBias) -> Row:
    found = f"{bias.share:.4f} {bias.side.value} over {bias.candles} candles"
    return _row(
        DenyCode.SIGNALS_BIASED,
        found,
        f"at most {bias.limit:.4f} on the entry's own side, once there are {bias.window} candles",
    )


def _constraint_rows(turn: Turn, counts: EntryCounts | None) -> Iterator[Row]:
    """Yield the guards on hours, names, pauses, counts and slots; of those that the policy has."""
    policy, symbol, snapshot, load = turn.policy, turn.signal.symbol, turn.snapshot, turn.load
    if policy.trading_windows or policy.days_off:
        asked = f"{', '.join(policy.trading_windows) or 'any time'}, not on {', '.join(policy.days_off) or 'no day'}"
        yield _row(DenyCode.OUTSIDE_TRADING_WINDOW, moment_text(turn.now_ms), asked)
    if policy.allowed_symbols or policy.denied_symbols:
        asked = f"{', '.join(policy.allowed_symbols) or 'any'}, not {', '.join(policy.denied_symbols) or 'none'}"
        yield _row(DenyCode.SYMBOL_NOT_ALLOWED, symbol, asked)
    yield _row(DenyCode.POSITION_OPEN, "held" if symbol in load.symbols else "none", "none")
    for code, since_ms, seconds in cooldowns(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=turn.now_ms):
        if code is DenyCode.COOLDOWN or seconds:
            found = "never" if since_ms is None else f"{turn.now_ms - since_ms} ms ago"
            yield _row(code, found, f"at least {seconds * 1000} ms")
    for code, period_ms, entries, maximum in entry_counts(
        symbol, snapshot=snapshot, load=load, policy=policy, now_ms=turn.now_ms, counts=counts
    ):
        known = "unknown" if entries is None else entries
        found = f"{known} in {period_ms // HOUR_MS} h"
        yield _row(code, found, f"fewer than {maximum}", mark=str(period_ms))
    yield _row(DenyCode.MAX_POSITIONS, str(load.slots), f"fewer than {policy.max_positions}")


def _of_the_size(turn: Turn) -> Iterator[Step]:
    snapshot, policy, symbol, load = turn.snapshot, turn.policy, turn.signal.symbol, turn.load
    room = partial(
        portfolio_refusal, snapshot, symbol=symbol, direction=turn.signal.direction, load=load, policy=policy
    )
    least = smallest_notional(symbol, snapshot, policy)
    yield Step(
        room(notional=least, risk=_ZERO), tuple(_portfolio_rows(turn, least, _ZERO, "the smallest that there may be"))
    )
    prices = entry_prices(turn.candidate, snapshot, policy)
    if isinstance(prices, Refusal):
        yield Step(prices, ())
        return
    exits = f"stop {prices.exits.stop_price}, target {prices.exits.target_price}"
    yield Step(None, (_row(DenyCode.STOP_UNUSABLE, exits, f"each on its side of {prices.crossed}"),))
    yield from _position_steps(turn, prices)
    share = share_at_risk(turn.candidate, prices, policy)
    if isinstance(share, Refusal):
        yield Step(share, ())
        return
    minimum = f"above 0, at least {_share(policy.min_risk_per_trade)}"
    yield Step(None, (_row(DenyCode.NO_EDGE_TO_BET, f"{_share(share)} of equity", minimum),))
    size = size_of(turn.candidate, prices, share, snapshot=snapshot, policy=policy)
    refusal = size if isinstance(size, Refusal) else None
    yield Step(refusal, tuple(_sizing_rows(turn, size)))
    if isinstance(size, Refusal):
        return
    rows = tuple(_portfolio_rows(turn, size.notional, size.risk, "this entry"))
    yield Step(room(notional=size.notional, risk=size.risk), rows)
    yield from _last_steps(turn, size)


def _portfolio_rows(turn: Turn, notional: Decimal, risk: Decimal, whose: str) -> Iterator[Row]:
    load, policy, equity, symbol = turn.load, turn.policy, turn.snapshot.account.equity, turn.signal.symbol
    by = f"of it {notional:.2f} by {whose}"

    def money(code: DenyCode, carried: Decimal, limit: Decimal) -> Row:
        return _row(code, f"{carried + notional:.2f}, {by}", f"at most {limit * equity:.2f}")

    yield money(DenyCode.EXPOSURE_ABOVE_MAXIMUM, load.gross_notional, policy.max_exposure)
    heat = f"{load.heat + risk:.4f}, of it {risk:.4f} by {whose}"
    yield _row(DenyCode.HEAT_ABOVE_MAXIMUM, heat, f"at most {policy.max_portfolio_heat * equity:.4f}")
    view = turn.risk
    if view is None:
        return
    if policy.max_concentration is not None:
        yield money(DenyCode.CONCENTRATION_ABOVE_MAXIMUM, load.carried_in(symbol), policy.max_concentration)
    # A symbol of which neither is known is refused for that: RISK_INPUT_MISSING.
    if policy.max_correlated_exposure is not None and symbol in view.clusters:
        carried = carried_by_cluster(symbol, view, load)
        yield money(DenyCode.CORRELATED_ABOVE_MAXIMUM, carried, policy.max_correlated_exposure)
    if policy.max_btc_beta is not None and symbol in view.betas:
        before, after, loose = beta_with(symbol, view, direction=turn.signal.direction, load=load, notional=notional)
        asked = f"at most {policy.max_btc_beta * equity:.2f}, or a net that is nearer to none than {abs(before):.2f}"
        found = f"{abs(after) + loose:.2f}, a net of {after:.2f} with {by}, beta {view.betas[symbol]}"
        yield _row(DenyCode.BETA_ABOVE_MAXIMUM, found, asked)


def _position_steps(turn: Turn, prices: EntryPrices) -> Iterator[Step]:
    """Yield the guards that the view of risk has: the distance to liquidation, and the governor's."""
    if turn.risk is None:
        return
    policy, direction, entry, stop = turn.policy, turn.signal.direction, prices.reference, prices.exits.stop_price
    liquidation = liquidation_price(direction=direction, entry_price=entry, policy=policy)
    away = entry - liquidation if direction is Direction.LONG else liquidation - entry
    required = policy.min_liquidation_stops * abs(entry - stop)
    asked = f"at least {_figure(required)}: {policy.min_liquidation_stops} distances to the stop"
    yield Step(
        position_refusal(turn.snapshot, direction=direction, entry_price=entry, stop_price=stop, policy=policy),
        (_row(DenyCode.LIQUIDATION_TOO_NEAR, f"{_figure(away)} away, at {_figure(liquidation)}", asked),),
    )
    inputs = governor_inputs(turn.candidate, snapshot=turn.snapshot, load=turn.load, policy=policy)
    if inputs is None:
        return
    least = f"at least {policy.governor_min_confidence:.4f}"
    rows = [_row(DenyCode.VETO_CONFIDENCE, f"{inputs.confidence:.4f}", least)]
    if policy.governor_max_volatility is not None:
        most = f"at most {_share(policy.governor_max_volatility)}"
        rows.append(_row(DenyCode.VETO_VOLATILITY, _share(inputs.volatility), most))
    if policy.governor_drawdown_share is not None:
        below = f"below {_share(policy.governor_drawdown_share)}"
        for which, part in (("day", inputs.daily_drawdown), ("week", inputs.weekly_drawdown)):
            found = f"{_share(part)} of the {which}'s limit"
            rows.append(_row(DenyCode.VETO_DRAWDOWN, found, below, mark=which))
    if policy.governor_max_companions is not None:
        names = f": {', '.join(inputs.companions)}" if inputs.companions else ""
        most = f"at most {policy.governor_max_companions} of its cluster on its side"
        rows.append(_row(DenyCode.VETO_CORRELATION, f"{len(inputs.companions)}{names}", most))
    yield Step(governor_veto(inputs, policy), tuple(rows))


def _sizing_rows(turn: Turn, size: Size | Refusal) -> Iterator[Row]:
    """Yield what the size came to, beside the least that it may be and the most that it is made to lose."""
    policy, instrument = turn.policy, turn.snapshot.instruments[turn.signal.symbol]
    quantity = size.context["quantity"] if isinstance(size, Refusal) else size.quantity
    steps_of = f"at least {instrument.min_quantity}, in steps of {instrument.quantity_step}"
    yield _row(DenyCode.QUANTITY_BELOW_STEP, f"{quantity}", steps_of)
    if isinstance(size, Refusal):
        # Where it is too little worth, its quantity was enough.
        if size.code is not DenyCode.QUANTITY_BELOW_STEP:
            yield _row(size.code, "", "")
        return
    least = smallest_notional(turn.signal.symbol, turn.snapshot, policy)
    yield _row(DenyCode.NOTIONAL_BELOW_MINIMUM, f"{size.notional:.2f}", f"at least {least:.2f}")
    most = min(policy.risk_per_trade * policy.max_size_multiplier, policy.max_risk_per_trade)
    budget = turn.snapshot.account.equity * most * committee_budget(turn.snapshot)
    yield Row(Guard(name="risk at the stop", found=f"{size.risk:.4f}", asked=f"at most {budget:.4f}"))
    worth = f"from {policy.min_notional} to {policy.max_notional}"
    yield Row(Guard(name="notional", found=f"{size.notional:.2f}", asked=worth))


def _last_steps(turn: Turn, size: Size) -> Iterator[Step]:
    snapshot, policy, equity, symbol = turn.snapshot, turn.policy, turn.snapshot.account.equity, turn.signal.symbol
    if turn.risk is not None:
        most = min(policy.max_notional, equity * policy.max_exposure)
        asked = f"at most {most:.2f}, with {equity * policy.max_risk_per_trade:.4f} at risk"
        row = _row(DenyCode.VETO_SIZE, f"{size.notional:.2f}, with {size.risk:.4f} at risk", asked)
        yield Step(size_veto(size, snapshot=snapshot, policy=policy), (row,))
    resolution = snapshot.resolution
    if isinstance(resolution, Resolution) and symbol in resolution.caps:
        found = (
            f"{abs(turn.load.signed.get(symbol, _ZERO)) + size.notional:.2f}, of it {size.notional:.2f} by this entry"
        )
        row = _row(DenyCode.COMMITTEE_CAP, found, f"at most {resolution.caps[symbol]:.2f}")
        yield Step(committee_cap(symbol, size, snapshot=snapshot, load=turn.load), (row,))


def _row(code: DenyCode, found: str, asked: str, *, mark: str = "") -> Row:
    return Row(Guard(name=code.value, found=found, asked=asked), mark)


def _share(value: Decimal) -> str:
    return f"{value:.6f}"


def _figure(value: Decimal) -> str:
    return f"{value:.8g}"
