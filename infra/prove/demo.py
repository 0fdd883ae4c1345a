"""The demonstration, unattended: trained, promoted, traded, protected, within a quarter of an hour."""

from __future__ import annotations

from infra.prove.demonstration import play, play_fresh_clone
from infra.prove.proof import Proof, Size

MAX_SECONDS = 15 * 60
MIN_TRADES = 20
MIN_SYMBOLS = 5
MAX_UNPROTECTED_MS = 250.0


def prove(size: Size) -> Proof:
    """
    Play it at its full size: twenty symbols, thirty days, twenty closed trades.

    In full it is `make demo` in a fresh clone with its own environments; in CI, which is a fresh clone, in this one.
    """
    played = play_fresh_clone("demo") if size is Size.FULL else play("demo")
    trades = played.trading.get("closed_trades", 0)
    symbols = len(played.trading.get("symbols", []))
    unprotected = played.trading.get("max_unprotected_ms")
    holds = (
        played.status == 0
        and played.seconds <= MAX_SECONDS
        and trades >= MIN_TRADES
        and symbols >= MIN_SYMBOLS
        and unprotected is not None
        and unprotected <= MAX_UNPROTECTED_MS
        and played.report.get("journal_verified") is True
        and not played.left_behind
    )
    return Proof(
        name="demo",
        figure=(
            f"exit {played.status} in {played.seconds:.0f} s, {trades} trades on {symbols} symbols, "
            f"longest without a stop {unprotected} ms, journal verified {played.report.get('journal_verified')}"
        ),
        bar="exit 0 in <= 900 s, >= 20 trades on >= 5 symbols, <= 250 ms, journal verified",
        holds=holds,
        details=played.story,
    )
