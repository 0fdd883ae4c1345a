"""Five roles, each a pure function of what it is told; none of them guesses, and each says what it compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from inference.domain.governance import ALL, Role, Stance, Vote
from inference.governance.briefing import Briefing
from inference.governance.charter import Charter

Voting = Callable[[Briefing, Charter], Vote]

_CRASH = "crash"
_ONE, _NONE = Decimal(1), Decimal(0)


def chief_executive(briefing: Briefing, charter: Charter) -> Vote:
    """
    Say how much is ventured at all: by the day's loss, the market's regime, the model's standing, and what others do.

    Without a model there is nothing to venture on.
    """
    strict, careful = _strict_causes(briefing, charter), _careful_causes(briefing, charter)
    stance = Stance.EXITS_ONLY if strict else Stance.CAREFUL if careful else Stance.NORMAL
    return Vote(
        role=Role.CHIEF_EXECUTIVE,
        policy=briefing.policy.fingerprint,
        stance=stance,
        budget={Stance.NORMAL: _ONE, Stance.CAREFUL: charter.careful_budget, Stance.EXITS_ONLY: _NONE}[stance],
        caps={},
        vetoes={},
        because=(*strict, *careful),
    )


def chief_risk_officer(briefing: Briefing, charter: Charter) -> Vote:
    """
    Set the budget: whole while little is lost, less in a straight line up to the day's limit, none beyond it.

    A symbol whose volatility is not known cannot be sized, and is vetoed.
    """
    loss = _loss_share(briefing)
    beyond = (loss - charter.full_budget_loss) / (1 - charter.full_budget_loss)
    budget = _ONE - (1 - charter.least_budget) * min(_ONE, max(_NONE, beyond))
    if loss >= 1:
        budget = _NONE
    vetoes = {
        symbol: f"its volatility is {value}"
        for symbol, value in sorted(briefing.volatility.items())
        if not (value.is_finite() and value > 0)
    }
    because = (f"{loss:.4f} of the day's limit is lost: budget {budget:.4f}",) if budget < 1 else ()
    return Vote(
        role=Role.CHIEF_RISK_OFFICER,
        policy=briefing.policy.fingerprint,
        budget=budget,
        caps={},
        vetoes=vetoes,
        because=because,
    )


def chief_investment_officer(briefing: Briefing, charter: Charter) -> Vote:
    """
    Share the exposure out by inverse volatility: what moves less may carry more, and nothing carries all.

    A symbol may come to `spread` times its part, and to `max_share` at most, of what the policy allows in all. What
    other workers of the desk carry in a symbol counts against the desk's part of it.
    """
    known = {one: value for one, value in briefing.volatility.items() if value.is_finite() and value > 0}
    whole = max(_NONE, briefing.policy.max_exposure * briefing.account.equity)
    parts = _inverse_parts(known)
    caps = {one: min(charter.max_share, charter.spread * part) * whole for one, part in parts.items()}
    vetoes: dict[str, str] = {}
    others = briefing.others
    if others is not None and others.equity > 0:
        desk = max(_NONE, briefing.policy.max_exposure * (others.equity + briefing.account.equity))
        for symbol, part in parts.items():
            allowed = min(charter.max_share, charter.spread * part) * desk
            left = max(_NONE, allowed - others.notional.get(symbol, _NONE))
            caps[symbol] = min(caps[symbol], left)
    carried = briefing.notional
    for symbol, cap in sorted(caps.items()):
        if carried.get(symbol, _NONE) >= cap:
            vetoes[symbol] = f"it carries {carried.get(symbol, _NONE):.2f} of {cap:.2f}"
    return Vote(
        role=Role.CHIEF_INVESTMENT_OFFICER,
        policy=briefing.policy.fingerprint,
        caps=caps,
        vetoes=vetoes,
        because=tuple(f"{symbol}: {why}" for symbol, why in vetoes.items()),
    )


def compliance(briefing: Briefing, _charter: Charter) -> Vote:
    """Hold lists and limits: no denied symbol, none that is not allowed, no more exposure, no ungated model live."""
    policy, vetoes = briefing.policy, {}
    symbols = sorted({*briefing.volatility, *briefing.positions, *briefing.in_flight})
    for symbol in symbols:
        # As the decision's own lists, which name symbols or assets.
        names = {symbol, symbol.partition("/")[0]}
        if names.intersection(policy.denied_symbols):
            vetoes[symbol] = "it is on the list of denied symbols"
        elif policy.allowed_symbols and not names.intersection(policy.allowed_symbols):
            vetoes[symbol] = "it is not on the list of allowed symbols"
    if briefing.real_money and (briefing.model is None or not briefing.model.gated):
        vetoes[ALL] = "no model that the gates and a person let trade real money is loaded"
    gross, allowed = sum(briefing.notional.values(), _NONE), policy.max_exposure * briefing.account.equity
    if gross > allowed:
        vetoes[ALL] = f"exposure is {gross:.2f}, allowed are {max(_NONE, allowed):.2f}"
    return Vote(
        role=Role.COMPLIANCE,
        policy=policy.fingerprint,
        caps={},
        vetoes=vetoes,
        because=tuple(f"{symbol}: {why}" for symbol, why in vetoes.items()),
    )


def audit(briefing: Briefing, charter: Charter) -> Vote:
    """Veto every entry that could not be accounted for: a damaged record, a lagging disk, a decision not reproduced."""
    record = briefing.record
    causes = [
        (not record.is_whole, "the journal is not whole"),
        (record.unsynced > charter.unsynced, f"{record.unsynced} entries are not on disk, {charter.unsynced} may be"),
        (record.reproduced is False, "the last decision, made again from its record, comes out differently"),
    ]
    because = tuple(text for holds, text in causes if holds)
    return Vote(
        role=Role.AUDIT,
        policy=briefing.policy.fingerprint,
        stance=Stance.EXITS_ONLY if because else Stance.NORMAL,
        budget=_NONE if because else _ONE,
        caps={},
        vetoes={ALL: "; ".join(because)} if because else {},
        because=because,
    )


ROLES: Mapping[Role, Voting] = {
    Role.CHIEF_EXECUTIVE: chief_executive,
    Role.CHIEF_RISK_OFFICER: chief_risk_officer,
    Role.CHIEF_INVESTMENT_OFFICER: chief_investment_officer,
    Role.COMPLIANCE: compliance,
    Role.AUDIT: audit,
}


def _strict_causes(briefing: Briefing, charter: Charter) -> tuple[str, ...]:
    crashed = _share_in(briefing.regimes, _CRASH)
    others = briefing.others
    agreed = others is not None and others.heard > 0 and others.exits_only > charter.majority * others.heard
    causes = [
        (briefing.model is None, "no model is loaded"),
        (briefing.account.equity <= 0, f"equity is {briefing.account.equity}"),
        (crashed >= charter.crash_share, f"{crashed:.2f} of the symbols are in a crash, {charter.crash_share} may not"),
        (agreed, "most of the federation takes exits only"),
    ]
    return tuple(text for holds, text in causes if holds)


def _careful_causes(briefing: Briefing, charter: Charter) -> tuple[str, ...]:
    loss, model, others = _loss_share(briefing), briefing.model, briefing.others
    unheard = others is not None and others.heard < charter.quorum * others.expected
    agreed = (
        others is not None and others.heard > 0 and others.careful + others.exits_only > charter.majority * others.heard
    )
    causes = [
        (loss >= charter.careful_loss, f"{loss:.4f} of the day's limit is lost, careful from {charter.careful_loss}"),
        (model is not None and model.is_poor, "the model's opinions were found poor"),
        (model is not None and model.is_biased, "the signals lean to one side"),
        (unheard, "too few of the federation are heard"),
        (agreed, "most of the federation is careful"),
    ]
    return tuple(text for holds, text in causes if holds)


def _loss_share(briefing: Briefing) -> Decimal:
    drawdown = briefing.account.daily_drawdown if briefing.account.equity > 0 else _ONE
    return drawdown / briefing.policy.max_daily_drawdown


def _share_in(regimes: Mapping[str, str], name: str) -> Decimal:
    if not regimes:
        return _NONE
    return Decimal(sum(1 for one in regimes.values() if one == name)) / len(regimes)


def _inverse_parts(volatility: Mapping[str, Decimal]) -> dict[str, Decimal]:
    inverse = {symbol: 1 / value for symbol, value in sorted(volatility.items())}
    total = sum(inverse.values(), _NONE)
    return {symbol: value / total for symbol, value in inverse.items()}
