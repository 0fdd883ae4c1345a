"""One candle that was decided on, as rows: what was answered for each symbol, and how the account stood."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec import UNSET

from inference.domain.decision import Approved, Candidate, Denied
from inference.domain.events import CandlesDecided
from inference.domain.exact import total
from inference.storage.records import Row, day_of, plain, uuid_of


def signal_rows(event: CandlesDecided, *, seq: int, digest: str, policy: str) -> list[Row]:
    """
    Return a row for each answer, approvals first, with all that the journal says of it.

    `seq` and `digest` are those of the entry, `policy` is the fingerprint of the rules.
    """
    inputs = {one.signal.symbol: one for one in event.snapshot.candidates}
    answers: list[Approved | Denied] = [*event.approved, *event.denied]
    common = {
        "seq": seq,
        "policy": policy,
        "candle_closed_at": event.snapshot.candle_close_ms,
        "decided_at": event.now_ms,
    }
    return [
        {
            **common,
            "ordinal": ordinal,
            "uuid": uuid_of("signal", f"{digest}:{ordinal}"),
            **_answer(one),
            **_said(one),
            **_looked_at(inputs.get(one.symbol)),
        }
        for ordinal, one in enumerate(answers)
    ]


def standing_row(event: CandlesDecided, *, seq: int, week_start: Decimal) -> Row:
    """Return how the account stood as the decision found it; `week_start` is the equity that the week began with."""
    snapshot = event.snapshot
    account = snapshot.account
    return {
        "seq": seq,
        "trading_state": snapshot.trading_state.value,
        "equity": account.equity,
        "daily_pnl": account.equity - account.day_start_equity,
        "weekly_pnl": account.equity - week_start,
        "drawdown": drawdown_of(account.equity, account.peak_equity),
        "open_positions": len(snapshot.positions),
        "total_exposure": total(abs(one.notional) for one in snapshot.positions.values()),
        "in_flight": total(snapshot.in_flight.values()),
        "heat": total(snapshot.heat.values()),
        # Journals from before there was an emergency stop say nothing of one.
        "emergency": "" if snapshot.risk is UNSET else snapshot.risk.emergency,
        "approved": len(event.approved),
        "denied": len(event.denied),
        "candle_closed_at": snapshot.candle_close_ms,
        "decided_on": day_of(event.now_ms),
        "decided_at": event.now_ms,
    }


def drawdown_of(equity: Decimal, peak: Decimal) -> Decimal:
    """Return the fall from the peak as a fraction of it; zero where there was never anything."""
    return 1 - equity / peak if peak > 0 else Decimal(0)


def _answer(one: Approved | Denied) -> Row:
    if isinstance(one, Denied):
        return {"symbol": one.symbol, "outcome": "DENIED", "code": one.code.value, "context": dict(one.context)}
    return {"symbol": one.symbol, "outcome": "APPROVED", "code": None, "context": _order_wanted(one)}


def _order_wanted(one: Approved) -> Mapping[str, str]:
    names = ("quantity", "reference_price", "stop_price", "target_price", "risk")
    return {name: f"{getattr(one, name)}" for name in names}


def _said(one: Approved | Denied) -> Row:
    signal = one.signal
    return {
        "direction": None if signal is None else signal.direction.value,
        "confidence": None if signal is None else signal.probability,
        "expected_return": None if signal is None else signal.expected_return,
        "model_version": None if signal is None else signal.model_version,
        "consensus": None if signal is None else signal.consensus,
        "members": None if signal is None else plain(signal.members),
        "regime": None if signal is None else signal.regime,
        "trace_id": None if signal is None else signal.trace_id,
    }


def _looked_at(candidate: Candidate | None) -> Row:
    if candidate is None:
        return {"price": None, "inputs": None}
    inputs = {"atr": candidate.atr, "close": candidate.close, "threshold": candidate.threshold}
    return {"price": candidate.close, "inputs": inputs}
