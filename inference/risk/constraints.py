"""Time, count and slot limits: the one owner of each."""

from __future__ import annotations

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.policy import Policy
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse


def constraint_refusal(
    symbol: str, *, snapshot: Snapshot, load: PortfolioLoad, policy: Policy, now_ms: int
) -> Refusal | None:
    """Refuse a symbol that is held or asked for, that was entered too recently, or for which no slot is left."""
    if symbol in load.symbols:
        held = snapshot.positions[symbol].quantity if symbol in snapshot.positions else 0
        return refuse(DenyCode.POSITION_OPEN, quantity=str(held), in_flight=str(symbol in load.in_flight))

    if symbol in snapshot.last_entry_ms:
        elapsed_ms = now_ms - snapshot.last_entry_ms[symbol]
        if elapsed_ms < policy.cooldown_seconds * 1000:
            return refuse(DenyCode.COOLDOWN, elapsed_ms=elapsed_ms, cooldown_ms=policy.cooldown_seconds * 1000)

    if load.slots >= policy.max_positions:
        return refuse(DenyCode.MAX_POSITIONS, positions=load.slots, maximum=policy.max_positions)

    return None
