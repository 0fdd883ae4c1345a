"""Two records of the same trading, held against each other row by row: one over the wire, one in process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from infra.prove.wire_replay import Replayed
from infra.prove.wire_worker import Traded

# What names a request, and what the venue says of a conditional order only while it waits.
_IDS = ("orderId", "clientOrderId", "algoId", "clientAlgoId", "actualOrderId", "id")
_PLACED = ("symbol", "side", "orderType", "quantity", "triggerPrice", "reduceOnly", "workingType", "createTime")


@dataclass(slots=True)
class Compared:
    """What was held against each other, and what differed."""

    decisions: int = 0
    opinions: int = 0
    kept_out: int = 0
    orders: int = 0
    fills: int = 0
    funding: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, other: Compared, name: str) -> None:
        """Count what another comparison found, its differences under a name."""
        for counted in ("decisions", "opinions", "kept_out", "orders", "fills", "funding"):
            setattr(self, counted, getattr(self, counted) + getattr(other, counted))
        self.differences += [f"{name}: {difference}" for difference in other.differences]


def hold_against(found: Compared, wire: Traded, engine: Replayed, until_ms: int) -> None:
    """Note what differs of all that there was before a time."""
    for what, theirs, ours, when in (
        ("order", wire.orders, engine.orders, "time"),
        ("fill", wire.fills, engine.fills, "time"),
        ("payment of funding", wire.funding, engine.funding, "time"),
    ):
        keys = ("symbol", "income", "time") if what.startswith("payment") else None
        found.differences += _differences(what, _rows(theirs, when, until_ms, keys), _rows(ours, when, until_ms, keys))
    placed = [_rows(rows, "createTime", until_ms, _PLACED) for rows in (wire.algos, engine.algos)]
    ended = [
        _rows([one for one in rows if one["algoStatus"] != "NEW"], "updateTime", until_ms)
        for rows in (wire.algos, engine.algos)
    ]
    found.differences += _differences("conditional order", *placed)
    found.differences += _differences("end of a conditional order", *ended)
    found.orders = len(_rows(wire.orders, "time", until_ms)) + len(placed[0])
    found.fills = len(_rows(wire.fills, "time", until_ms))
    found.funding = len(_rows(wire.funding, "time", until_ms, ("symbol",)))


def _rows(
    rows: Iterable[dict[str, Any]], when: str, until_ms: int, keys: tuple[str, ...] | None = None
) -> list[tuple[tuple[str, str], ...]]:
    """Return what there was before a time, without ids, in an order of its own."""
    return sorted(
        tuple(sorted((name, _plain(one[name])) for name in (keys or one) if name not in _IDS))
        for one in rows
        if int(one[when]) < until_ms
    )


def _plain(value: Any) -> str:
    """Return a number in its shortest form: quantities come as they were sent, with trailing zeros or without."""
    try:
        return f"{Decimal(value).normalize():f}" if isinstance(value, str) else str(value)
    except InvalidOperation:
        return str(value)


def _differences(what: str, theirs: list[Any], ours: list[Any]) -> list[str]:
    wire, engine = Counter(theirs), Counter(ours)
    return [
        *(f"{what} over the wire only: {dict(one)}" for one in (wire - engine).elements()),
        *(f"{what} in process only: {dict(one)}" for one in (engine - wire).elements()),
    ]
