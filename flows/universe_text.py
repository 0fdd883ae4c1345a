"""How a universe reads: rows for tables, and the sentence on why a symbol is in or out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from feature_store.universe.archive import StoredUniverse
from feature_store.universe.selection import DAY_MS, Numbers, Refusal, Universe, Verdict, base_asset
from flows.wording import figure, moment

_NAMED = 10


def verdict_rows(universe: Universe) -> list[dict[str, Any]]:
    """Return a row for each symbol: its place, what was known of it, and why it is out if it is."""
    return [
        {
            "symbol": one.symbol,
            "rank": one.rank or "-",
            "verdict": "included" if one.is_included else told(one.refusal, one.numbers),
            "class": ", ".join(one.classes) or "-",
            "volume 24 h": amount(one.facts.volume_24h),
            "median hour": amount(one.facts.liquidity),
            "age in days": round((universe.at_ms - one.facts.first_open_ms) / DAY_MS),
            "last candle closed": moment(one.facts.last_close_ms),
        }
        for one in universe.verdicts
    ]


def summary(stored: StoredUniverse) -> str:
    """Say in a sentence how many symbols are in, and how many each filter refused."""
    universe = stored.universe
    refused = Counter(one.refusal for one in universe.verdicts if one.refusal is not None)
    parts = [f"{refused[one]} {one}" for one in Refusal if refused[one]]
    out = f"; refused: {', '.join(parts)}" if parts else ""
    return (
        f"Week of {moment(universe.at_ms)}: {len(universe.symbols)} of {len(universe.verdicts)} known symbols "
        f"are in{out}"
    )


def why(stored: StoredUniverse, verdict: Verdict) -> str:
    """Tell why a symbol is in or out, with the numbers that decided."""
    facts, at_ms = verdict.facts, stored.universe.at_ms
    known = f"revision {stored.revision}, known since {moment(stored.available_at_ms)}"
    traded = f"in 24 hours {amount(facts.volume_24h)} of the quote, in the week's median hour {amount(facts.liquidity)}"
    lines = [f"{verdict.symbol} in the week of {moment(at_ms)}, {known}:"]
    if verdict.refusal is None:
        lines.append(f"  Included as number {verdict.rank} of {len(stored.universe.symbols)} by volume.")
    else:
        lines.append(f"  Refused: {told(verdict.refusal, verdict.numbers)}.")
    lines += [
        f"  {base_asset(verdict.symbol)} is {' and '.join(verdict.classes) or 'on no list'} (lists {stored.lists}).",
        f"  Traded {traded}.",
        f"  Oldest candle {moment(facts.first_open_ms)}, newest closed {moment(facts.last_close_ms)}.",
    ]
    if facts.delisted_ms is not None:
        lines.append(f"  The venue stops trading it at {moment(facts.delisted_ms)}.")
    return "\n".join(lines)


def told(refusal: Refusal | None, numbers: Numbers) -> str:
    """Write a refusal with what was compared: `STALE (minutes_without_candle 120, maximum 60)`."""
    compared = ", ".join(f"{name} {_written(name, value)}" for name, value in numbers.items())
    return f"{refusal} ({compared})" if compared else str(refusal)


def lacking(symbols: Sequence[str]) -> str:
    """Say which symbols no week can include, for want of candles; nothing where there are none."""
    if not symbols:
        return ""
    shown = ", ".join(symbols[:_NAMED]) + (", …" if len(symbols) > _NAMED else "")
    return (
        f"{len(symbols)} listed or once listed symbols have no candles; all weeks are chosen without them: {shown}. "
        "'qtctl ingest' with QT_SYMBOLS=universe fetches what the venue still serves"
    )


def changes(history: Sequence[StoredUniverse]) -> list[dict[str, Any]]:
    """Return a row for each stored revision, oldest first: how many are in, who joined and who left."""
    rows, before = [], frozenset[str]()
    for one in history:
        now = frozenset(one.universe.symbols)
        rows.append(
            {
                "week": moment(one.universe.at_ms),
                "revision": one.revision,
                "known since": moment(one.available_at_ms),
                "symbols": len(now),
                "joined": sorted(now - before),
                "left": sorted(before - now),
            }
        )
        before = now
    return rows


def amount(value: float) -> str:
    """Write an amount of quote units to three digits: `1.38 bn`, `41.9 M`, `948 k`."""
    for unit, size in (("bn", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size * 0.9995:
            return f"{figure(value / size, 3)} {unit}"
    return figure(value, 3)


def _written(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return moment(int(value)) if name.endswith("_ms") else figure(value, 6)
