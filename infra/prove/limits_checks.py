"""What must hold of every decision, by an arithmetic of its own: none of the chain's guards is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.bias import SignalBias
from inference.domain.decision import Approved, Decision, Denied, Snapshot, TradingState
from inference.domain.governance import ALL, Resolution, Stance
from inference.domain.market import Instrument
from inference.domain.policy import Policy
from inference.domain.risk import BreakerState, RiskView
from inference.domain.signal import Direction
from infra.prove.limits_drawn import DAYS_OFF, WINDOWS

_ZERO = Decimal(0)
_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000
# The chain and this file multiply and divide in another order: the last of 28 digits may differ.
_ROUNDING = 1 + Decimal("1e-20")
_SIGN = {Direction.LONG: 1, Direction.SHORT: -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """
    What was decided on, and what the world knows by itself.

    `is_stopped` says that an emergency stop stands, `entered` holds each entry ever made (symbol, venue time), `lost`
    when each symbol last lost.
    """

    snapshot: Snapshot
    policy: Policy
    now_ms: int
    is_stopped: bool
    entered: Sequence[tuple[str, int]]
    lost: Mapping[str, int]

    @property
    def risk(self) -> RiskView:
        """The view of risk; a world always has one."""
        assert isinstance(self.snapshot.risk, RiskView)
        return self.snapshot.risk


def broken(scene: Scene, decisions: Sequence[Decision]) -> list[str]:
    """Return what was broken, each beginning with the name of the rule and a colon."""
    approved = [one for one in decisions if isinstance(one, Approved)]
    denied = [one for one in decisions if isinstance(one, Denied)]
    wrong = [f"numbers: {one.code} without its numbers" for one in denied if not one.context]
    if len(decisions) != len(scene.snapshot.candidates):
        wrong.append("answers: a candidate was not answered")
    if approved:
        for name, holds, what in checked(scene, approved):
            if holds:
                wrong.append(f"{name}: {what}")
    return wrong


def checked(scene: Scene, approved: Sequence[Approved]) -> Iterator[tuple[str, bool, str]]:
    """Yield each rule that these approvals are held against: its name, whether it was broken, and how in words."""
    for rules in (_barred(scene, approved), _untimely(scene, approved), _resolved_against(scene, approved)):
        for name, holds in rules.items():
            yield name, holds, "entered all the same"
    for name, holds in _above_limits(scene, approved).items():
        yield name, holds, "limit broken"
    for place, one in enumerate(approved):
        for name, holds in (_above_caps(scene, one) | _vetoed(scene, one, approved[:place])).items():
            yield name, holds, f"cap broken by {one.symbol}"


def _barred(scene: Scene, approved: Sequence[Approved]) -> dict[str, bool]:
    """Return what should have let nothing in."""
    account, policy, breaker = scene.snapshot.account, scene.policy, scene.risk.breaker
    assert isinstance(account.week_start_equity, Decimal)
    return {
        "not ACTIVE": scene.snapshot.trading_state is not TradingState.ACTIVE,
        "stopped in emergency": scene.is_stopped,
        "blind": bool(scene.risk.missing),
        "daily drawdown": account.equity <= account.day_start_equity * (1 - policy.max_daily_drawdown),
        "weekly drawdown": account.equity <= account.week_start_equity * (1 - policy.max_weekly_drawdown),
        "the wall": account.equity <= account.peak_equity * (1 - policy.wall_peak_drawdown),
        "breaker open": breaker is not None and breaker.state is BreakerState.OPEN and scene.now_ms < breaker.until_ms,
        "more than one try": breaker is not None and (breaker.is_tried or len(approved) > 1),
    }


def _untimely(scene: Scene, approved: Sequence[Approved]) -> dict[str, bool]:
    """Return which rule of time, of lists or of counts an entry was made against."""
    policy, now_ms = scene.policy, scene.now_ms
    at = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    symbols = {one.symbol for one in approved}
    last = max((when for _, when in scene.entered), default=None)

    def named(symbol: str, listed: Sequence[str]) -> bool:
        return symbol in listed or symbol.partition("/")[0] in listed

    def entries(within_ms: int, symbol: str | None = None) -> int:
        made = [one for one, when in scene.entered if now_ms - when < within_ms]
        made += [one.symbol for one in approved]
        return len(made) if symbol is None else made.count(symbol)

    def most(limit: int | None, found: int) -> bool:
        return limit is not None and found > limit

    return {
        "outside the windows": bool(policy.trading_windows)
        and not any(WINDOWS[one](at) for one in policy.trading_windows),
        "a day off": bool(policy.days_off) and f"{at:%Y-%m-%d}" in DAYS_OFF,
        "denied symbol": any(named(one, policy.denied_symbols) for one in symbols),
        "not on the list": bool(policy.allowed_symbols)
        and not all(named(one, policy.allowed_symbols) for one in symbols),
        "cooldown": any(
            one in symbols and now_ms - when < policy.cooldown_seconds * 1000 for one, when in scene.entered
        ),
        "global cooldown": policy.global_cooldown_seconds > 0
        and (len(approved) > 1 or (last is not None and now_ms - last < policy.global_cooldown_seconds * 1000)),
        "loss cooldown": any(
            one in scene.lost and now_ms - scene.lost[one] < policy.loss_cooldown_seconds * 1000 for one in symbols
        ),
        "unknown counts": policy.counts_trades and isinstance(scene.snapshot.recent, UnsetType),
        "entries of an hour": most(policy.max_entries_per_hour, entries(_HOUR_MS)),
        "entries of a day": most(policy.max_entries_per_day, entries(_DAY_MS)),
        "symbol's entries of an hour": any(
            most(policy.max_symbol_entries_per_hour, entries(_HOUR_MS, one)) for one in symbols
        ),
        "symbol's entries of a day": any(
            most(policy.max_symbol_entries_per_day, entries(_DAY_MS, one)) for one in symbols
        ),
    }


def _resolved_against(scene: Scene, approved: Sequence[Approved]) -> dict[str, bool]:
    """Return what an enforced bias or the committee forbade."""
    bias, resolution = scene.snapshot.bias, scene.snapshot.resolution
    rules = {}
    if isinstance(bias, SignalBias):
        leans = bias.candles >= bias.window and bias.share > bias.limit
        rules["bias"] = leans and any(one.direction is bias.side for one in approved)
    if isinstance(resolution, Resolution):
        rules |= {
            "committee's veto": ALL in resolution.vetoes or any(one.symbol in resolution.vetoes for one in approved),
            "committee's stance": resolution.stance is Stance.EXITS_ONLY,
            # A symbol that carries something already is not entered, by a rule of its own.
            "committee's cap": any(
                one.quantity * one.reference_price > resolution.caps.get(one.symbol, one.quantity * one.reference_price)
                for one in approved
            ),
        }
    return rules


def _above_limits(scene: Scene, approved: Sequence[Approved]) -> dict[str, bool]:
    snapshot, policy, equity = scene.snapshot, scene.policy, scene.snapshot.account.equity
    carried = {name: one.quantity * one.entry_price for name, one in snapshot.positions.items()}
    gross = sum(carried.values(), _ZERO) + sum(snapshot.in_flight.values(), _ZERO)
    added = {one.symbol: one.quantity * one.reference_price for one in approved}
    occupied = set(snapshot.positions) | set(snapshot.in_flight)
    heat = sum(snapshot.heat.values(), _ZERO) + sum((one.risk for one in approved), _ZERO)
    rules = {
        "exposure": gross + sum(added.values()) > policy.max_exposure * equity,
        "heat": heat > policy.max_portfolio_heat * equity,
        "slots": len(occupied | set(added)) > policy.max_positions,
        "one position a symbol": len(occupied | set(added)) != len(occupied) + len(added),
    }
    if policy.max_correlated_exposure is not None:
        rules["cluster"] = _cluster_above(scene, carried, added, policy.max_correlated_exposure * equity)
    if policy.max_btc_beta is not None:
        rules["beta"] = _beta_above(scene, approved, policy.max_btc_beta * equity)
    return rules


def _cluster_above(
    scene: Scene, carried: Mapping[str, Decimal], added: Mapping[str, Decimal], maximum: Decimal
) -> bool:
    clusters = scene.risk.clusters
    for cluster in {clusters.get(name, "") for name in added}:
        if not cluster:
            return True
        total = _ZERO
        for held in (carried, scene.snapshot.in_flight, added):
            total += sum((v for k, v in held.items() if clusters.get(k, cluster) == cluster), _ZERO)
        if total > maximum:
            return True
    return False


def _beta_above(scene: Scene, approved: Sequence[Approved], maximum: Decimal) -> bool:
    betas, snapshot = scene.risk.betas, scene.snapshot

    def weighted(name: str, value: Decimal) -> Decimal:
        return value * Decimal(str(betas.get(name, 1.0)))

    net = sum(
        (weighted(n, p.quantity * p.entry_price * _SIGN[p.direction]) for n, p in snapshot.positions.items()), _ZERO
    )
    loose = sum((abs(weighted(name, value)) for name, value in snapshot.in_flight.items()), _ZERO)
    for one in approved:
        later = net + weighted(one.symbol, one.quantity * one.reference_price * _SIGN[one.direction])
        if abs(later) + loose > maximum and abs(later) >= abs(net):
            return True
        net = later
    return False


def _vetoed(scene: Scene, one: Approved, before: Sequence[Approved]) -> dict[str, bool]:
    """Return what the governor should have vetoed, by what was entered before it in the same pass too."""
    policy, account, snapshot = scene.policy, scene.snapshot.account, scene.snapshot
    rules = {"governor's confidence": one.signal.confidence < policy.governor_min_confidence}
    if policy.governor_max_volatility is not None:
        rules["governor's volatility"] = _volatility(scene, one) > policy.governor_max_volatility
    if (share := policy.governor_drawdown_share) is not None:
        day, week = account.day_start_equity, account.week_start_equity
        assert isinstance(week, Decimal)
        rules["governor's drawdown"] = (
            day - account.equity >= share * policy.max_daily_drawdown * day * _ROUNDING
            or week - account.equity >= share * policy.max_weekly_drawdown * week * _ROUNDING
        )
    if policy.governor_max_companions is not None:
        clusters = scene.risk.clusters
        mine = clusters.get(one.symbol)
        held = [(name, each.direction) for name, each in snapshot.positions.items()]
        held += [(each.symbol, each.direction) for each in before]
        beside = {name for name, side in held if side is one.direction and clusters.get(name, mine) == mine}
        rules["governor's companions"] = len(beside) > policy.governor_max_companions
    return rules


def _above_caps(scene: Scene, one: Approved) -> dict[str, bool]:
    policy, equity = scene.policy, scene.snapshot.account.equity
    instrument: Instrument = scene.snapshot.instruments[one.symbol]
    notional = one.quantity * one.reference_price
    away = abs(one.reference_price - one.stop_price)
    costs = (one.reference_price + one.stop_price) * (policy.taker_fee + policy.slippage)
    rules = {
        "notional": notional > policy.max_notional,
        "least notional": notional < policy.min_notional,
        "risk": one.quantity * (away + costs) > equity * policy.max_risk_per_trade,
        "multiplied risk": one.risk > equity * policy.risk_per_trade * policy.max_size_multiplier,
        "step": one.quantity % instrument.quantity_step != 0 or one.quantity > instrument.max_quantity,
        "tick": one.stop_price % instrument.price_tick != 0,
        "liquidation": away * policy.min_liquidation_stops > one.reference_price / policy.leverage * Decimal("1.01"),
        "concentration": policy.max_concentration is not None and notional > policy.max_concentration * equity,
    }
    return rules | _above_share(scene, one, loss=away + costs)


def _above_share(scene: Scene, one: Approved, *, loss: Decimal) -> dict[str, bool]:
    """Return which factor or cap of sizing was passed; `loss` is what one unit loses at the stop."""
    policy, equity = scene.policy, scene.snapshot.account.equity
    sure = Decimal(str(one.signal.confidence))
    factor = min(max(2 * sure - Decimal("0.4"), policy.min_size_multiplier), policy.max_size_multiplier)
    by_confidence = policy.risk_per_trade * factor
    most = {"confidence's size": by_confidence}
    shrunk = by_confidence
    if (target := policy.target_volatility) is not None and (found := _volatility(scene, one)) > target:
        shrunk = most["target volatility"] = by_confidence * target / found
    if one.signal.regime == "unknown":
        shrunk *= policy.unknown_regime_size
        most["unknown regime"] = by_confidence * policy.unknown_regime_size
    if policy.kelly_fraction is not None:
        costs = (one.reference_price + one.target_price) * (policy.taker_fee + policy.slippage)
        gain = abs(one.target_price - one.reference_price) - costs
        kelly = sure - (1 - sure) * loss / gain if gain > 0 else _ZERO
        most["Kelly"] = policy.kelly_fraction * kelly
        shrunk = min(shrunk, most["Kelly"])
    shrunk = min(shrunk, policy.max_risk_per_trade)
    if isinstance(resolution := scene.snapshot.resolution, Resolution):
        most["committee's budget"] = shrunk * resolution.budget
    rules = {name: one.risk > equity * share * _ROUNDING for name, share in most.items()}
    return rules | {"least risk": shrunk * _ROUNDING < policy.min_risk_per_trade}


def _volatility(scene: Scene, one: Approved) -> Decimal:
    candidate = next(each for each in scene.snapshot.candidates if each.signal.symbol == one.symbol)
    return Decimal(str(candidate.atr)) / Decimal(str(candidate.close))
