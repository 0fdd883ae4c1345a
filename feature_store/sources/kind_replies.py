"""What ccxt's unified replies say, as rows of a kind; one about another instrument is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from feature_store.errors import BadInputError
from feature_store.kinds.definition import BOOK, FILTERS, FUNDING, OPEN_INTEREST, Kind, Subject
from feature_store.kinds.records import Records

LEVELS = 20
"""So many levels of a side are kept of a book."""
NOT_LISTED = "NOT_LISTED"
"""Status of an instrument that the venue does not name any more."""
_TICK_SIZE = 4  # ccxt's mode in which precisions are steps.


def funding_of(subject: Subject, reply: list[dict[str, Any]]) -> Records:
    """Read a funding rate history."""
    _require_symbol(subject, reply)
    times = [row["timestamp"] // FUNDING.grid_ms * FUNDING.grid_ms for row in reply]
    return Records.of(FUNDING, times, funding_rate=[float(row["fundingRate"]) for row in reply])


def prices_of(kind: Kind) -> Callable[[Subject, list[list[float]]], Records]:
    """Return what reads candles of mark or index prices."""

    def read(_subject: Subject, reply: list[list[float]]) -> Records:
        names = ("open", "high", "low", "close")
        columns = {name: [float(row[1 + place]) for row in reply] for place, name in enumerate(names)}
        return Records.of(kind, [int(row[0]) for row in reply], **columns)

    return read


def interest_of(subject: Subject, reply: list[dict[str, Any]]) -> Records:
    """Read an open interest history."""
    _require_symbol(subject, reply)
    return Records.of(
        OPEN_INTEREST,
        [row["timestamp"] for row in reply],
        open_interest=[float(row["openInterestAmount"]) for row in reply],
        open_interest_value=[_number(row.get("openInterestValue")) for row in reply],
    )


def trades_of(kind: Kind, least_id: int = 0) -> Callable[[Subject, list[dict[str, Any]]], Records]:
    """Return what reads public trades, asked for from a number on."""

    def read(subject: Subject, reply: list[dict[str, Any]]) -> Records:
        _require_symbol(subject, reply)
        if any(row["side"] not in ("buy", "sell") for row in reply):
            raise BadInputError("a trade that does not say who took")
        if any(int(row["id"]) < least_id for row in reply):
            raise BadInputError(f"a trade with a number below {least_id}, from which on they were asked for")
        return Records.of(
            kind,
            [row["timestamp"] for row in reply],
            trade_id=[int(row["id"]) for row in reply],
            price=[float(row["price"]) for row in reply],
            quantity=[float(row["amount"]) for row in reply],
            is_buyer_maker=[row["side"] == "sell" for row in reply],
        )

    return read


def book_of(subject: Subject, reply: dict[str, Any], now_ms: int) -> Records:
    """Read a snapshot of the order book; its time is the venue's, or `now_ms` where the venue gives none."""
    _require_symbol(subject, [reply])
    bids, asks = (side[:LEVELS] for side in (reply["bids"], reply["asks"]))
    if not bids and not asks:
        raise BadInputError("a book without a single level")
    for side, falling in ((bids, True), (asks, False)):
        prices = [level[0] for level in side]
        if prices != sorted(set(prices), reverse=falling):
            raise BadInputError("levels of the book that are out of order")
    if bids and asks and bids[0][0] >= asks[0][0]:
        raise BadInputError(f"a crossed book: bid {bids[0][0]} is not below ask {asks[0][0]}")
    levels = [(True, level, row) for level, row in enumerate(bids)]
    levels += [(False, level, row) for level, row in enumerate(asks)]
    time_ms = now_ms if reply.get("timestamp") is None else int(reply["timestamp"])
    return Records.of(
        BOOK,
        [time_ms] * len(levels),
        update_id=[int(reply.get("nonce") or 0)] * len(levels),
        is_bid=[is_bid for is_bid, _, _ in levels],
        level=[level for _, level, _ in levels],
        price=[float(row[0]) for _, _, row in levels],
        quantity=[float(row[1]) for _, _, row in levels],
    )


def filters_of(market: dict[str, Any], *, precision_mode: int, now_ms: int) -> Records:
    """Read what an instrument's orders must look like from ccxt's description of it."""
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    quantities = limits.get("amount") or {}
    is_step = precision_mode == _TICK_SIZE
    return Records.of(
        FILTERS,
        [now_ms],
        price_tick=[_number(precision.get("price") if is_step else None)],
        quantity_step=[_number(precision.get("amount") if is_step else None)],
        least_quantity=[_number(quantities.get("min"))],
        most_quantity=[_number(quantities.get("max"))],
        least_notional=[_number((limits.get("cost") or {}).get("min"))],
        contract_size=[_number(market.get("contractSize"))],
        status=[_status(market)],
        listed_ms=[int(market.get("created") or 0)],
    )


def _status(market: dict[str, Any]) -> str:
    """Return the venue's own word; where it has none, whether ccxt counts the instrument as active."""
    info = market.get("info")
    word = info.get("status") if isinstance(info, dict) else None
    return str(word) if word else ("ACTIVE" if market.get("active") is not False else "INACTIVE")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _require_symbol(subject: Subject, rows: list[dict[str, Any]]) -> None:
    other = next((row["symbol"] for row in rows if row["symbol"] != subject.symbol), None)
    if other is not None:
        raise BadInputError(f"rows of {other}")
