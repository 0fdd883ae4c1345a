"""Time, count and slot limits: the one owner of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import UNSET

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.policy import Policy
from inference.domain.trading_window import is_open, moment_text
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class EntryCounts:
    """Entries of all symbols in the last 60 minutes and 24 hours before a pass; counted once, whatever it asks of."""

    hour: int
    day: int

    @classmethod
    def of(cls, snapshot: Snapshot, policy: Policy, now_ms: int) -> EntryCounts | None:
        """Count what a limit of the policy asks for; None where none does, or nothing is known of entries."""
        if snapshot.recent is UNSET or (policy.max_entries_per_hour is None and policy.max_entries_per_day is None):
            return None
        times = [one for several in snapshot.recent.entered_ms.values() for one in several]
        day = [one for one in times if now_ms - one < DAY_MS]
        return cls(hour=sum(now_ms - one < HOUR_MS for one in day), day=len(day))


def constraint_refusal(
    symbol: str,
    *,
    snapshot: Snapshot,
    load: PortfolioLoad,
    policy: Policy,
    now_ms: int,
    counts: EntryCounts | None,
) -> Refusal | None:
    """
    Refuse an entry that comes at the wrong time, too soon, too often, or for which no slot is left.

    Entries approved earlier in the same pass count as made at `now_ms`. What lies ahead of it, as it does where a clock
    was set back, counts as well. A limit whose numbers are not known refuses.
    """
    return (
        window_refusal(policy, now_ms)
        or symbol_refusal(symbol, policy)
        or _held_refusal(symbol, snapshot, load)
        or cooldown_refusal(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms)
        or count_refusal(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms, counts=counts)
        or slot_refusal(load, policy)
    )


def window_refusal(policy: Policy, now_ms: int) -> Refusal | None:
    """Refuse entries on days off and outside the trading windows."""
    if is_open(now_ms, windows=policy.trading_windows, days_off=policy.days_off):
        return None

    return refuse(
        DenyCode.OUTSIDE_TRADING_WINDOW,
        now=moment_text(now_ms),
        windows=",".join(policy.trading_windows) or "any",
        days_off=",".join(policy.days_off) or "none",
    )


def symbol_refusal(symbol: str, policy: Policy) -> Refusal | None:
    """Refuse what a list denies, or what is on no list that allows; a list names symbols or assets such as `BTC`."""
    if not policy.allowed_symbols and not policy.denied_symbols:
        return None
    names = {symbol, symbol.partition("/")[0]}
    if denied := names.intersection(policy.denied_symbols):
        return refuse(DenyCode.SYMBOL_NOT_ALLOWED, symbol=symbol, denied=",".join(sorted(denied)))
    if policy.allowed_symbols and not names.intersection(policy.allowed_symbols):
        return refuse(DenyCode.SYMBOL_NOT_ALLOWED, symbol=symbol, allowed=",".join(policy.allowed_symbols))

    return None


def cooldowns(
    symbol: str, *, snapshot: Snapshot, load: PortfolioLoad, policy: Policy, now_ms: int
) -> tuple[tuple[DenyCode, int | None, int], ...]:
    """
    Return each pause: its code, since when it runs (venue time in milliseconds, None where never), and its seconds.

    What is not known, and what was approved in this pass, counts as of now.
    """
    return (
        (DenyCode.COOLDOWN, snapshot.last_entry_ms.get(symbol), policy.cooldown_seconds),
        (DenyCode.LOSS_COOLDOWN, _lost_ms(symbol, snapshot, policy, now_ms), policy.loss_cooldown_seconds),
        (DenyCode.GLOBAL_COOLDOWN, _entered_ms(snapshot, load, policy, now_ms), policy.global_cooldown_seconds),
    )


def entry_counts(
    symbol: str,
    *,
    snapshot: Snapshot,
    load: PortfolioLoad,
    policy: Policy,
    now_ms: int,
    counts: EntryCounts | None,
) -> Iterator[tuple[DenyCode, int, int | None, int]]:
    """
    Yield each count that the policy limits: its code, its period in milliseconds, entries, and the most of them.

    Entries are None where they are not known.
    """
    own = ((HOUR_MS, policy.max_symbol_entries_per_hour), (DAY_MS, policy.max_symbol_entries_per_day))
    for period_ms, maximum in own:
        if maximum is None:
            continue
        entries = None
        if snapshot.recent is not UNSET:
            entries = sum(now_ms - one < period_ms for one in snapshot.recent.entered_ms.get(symbol, ()))
        yield DenyCode.SYMBOL_ENTRY_COUNT, period_ms, entries, maximum
    all_symbols = (
        (HOUR_MS, policy.max_entries_per_hour, None if counts is None else counts.hour),
        (DAY_MS, policy.max_entries_per_day, None if counts is None else counts.day),
    )
    for period_ms, maximum, before in all_symbols:
        if maximum is not None:
            entries = None if before is None else before + len(_entered_now(snapshot, load))
            yield DenyCode.ENTRY_COUNT, period_ms, entries, maximum


def cooldown_refusal(
    symbol: str, *, snapshot: Snapshot, load: PortfolioLoad, policy: Policy, now_ms: int
) -> Refusal | None:
    """Refuse an entry too soon after the symbol's last one, after its last loss, or after any entry at all."""
    waits = cooldowns(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms)
    for code, since_ms, seconds in waits:
        if since_ms is not None and now_ms - since_ms < seconds * 1000:
            return refuse(code, elapsed_ms=now_ms - since_ms, cooldown_ms=seconds * 1000)

    return None


def count_refusal(
    symbol: str,
    *,
    snapshot: Snapshot,
    load: PortfolioLoad,
    policy: Policy,
    now_ms: int,
    counts: EntryCounts | None,
) -> Refusal | None:
    """Refuse an entry beyond what any 60 minutes or any 24 hours may hold, of the symbol or of all together."""
    found = entry_counts(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms, counts=counts)
    for code, period_ms, entries, maximum in found:
        if entries is None or entries >= maximum:
            known = "unknown" if entries is None else entries
            return refuse(code, entries=known, maximum=maximum, period_ms=period_ms)

    return None


def slot_refusal(load: PortfolioLoad, policy: Policy) -> Refusal | None:
    """Refuse an entry for which no slot is left."""
    if load.slots < policy.max_positions:
        return None

    return refuse(DenyCode.MAX_POSITIONS, positions=load.slots, maximum=policy.max_positions)


def _held_refusal(symbol: str, snapshot: Snapshot, load: PortfolioLoad) -> Refusal | None:
    if symbol not in load.symbols:
        return None

    held = snapshot.positions[symbol].quantity if symbol in snapshot.positions else 0
    return refuse(DenyCode.POSITION_OPEN, quantity=str(held), in_flight=str(symbol in load.in_flight))


def _lost_ms(symbol: str, snapshot: Snapshot, policy: Policy, now_ms: int) -> int | None:
    if not policy.loss_cooldown_seconds:
        return None
    return now_ms if snapshot.recent is UNSET else snapshot.recent.lost_ms.get(symbol)


def _entered_ms(snapshot: Snapshot, load: PortfolioLoad, policy: Policy, now_ms: int) -> int | None:
    if not policy.global_cooldown_seconds:
        return None
    if _entered_now(snapshot, load):
        return now_ms
    return max(snapshot.last_entry_ms.values(), default=None)


def _entered_now(snapshot: Snapshot, load: PortfolioLoad) -> frozenset[str]:
    # A symbol in flight before is refused, so that what has come to it since is what this pass approved.
    return load.in_flight - frozenset(snapshot.in_flight)
