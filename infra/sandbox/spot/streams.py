"""Market streams of spot: the contracts' own streams, in spot's form, so that both always say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from infra.sandbox.protocol import market_data
from infra.sandbox.venue import Venue

ROOM = "/stream.spot"
"""Below which spot's streams are; ccxt tells spot from contracts by the word in the address."""

_QUOTED = ("u", "s", "b", "B", "a", "A")
_OF_DEPTH = ("e", "E", "s", "U", "u", "b", "a")
_OF_TRADE = ("e", "E", "s", "t", "p", "q", "T", "m")
Writer = Callable[[Any], Any]


def dialect(venue: Venue) -> Callable[[str, Any], Any]:
    """Return what writes an event of a stream as spot does; None for a stream that spot does not have."""

    def tickers(data: Any) -> Any:
        return [_ticker(venue, one) for one in data] if isinstance(data, list) else _ticker(venue, data)

    writers: dict[str, Writer] = {
        "kline": _same,
        "miniTicker": _same,
        "bookTicker": lambda data: {field: data[field] for field in _QUOTED},
        "ticker": tickers,
        "trade": lambda data: {field: data[field] for field in _OF_TRADE} | {"M": True},
        "aggTrade": lambda data: data | {"M": True},
        "depth": lambda data: {field: data[field] for field in _OF_DEPTH},
        "levels": lambda data: {"lastUpdateId": data["u"], "bids": data["b"], "asks": data["a"]},
    }

    def write(stream: str, data: Any) -> Any:
        writer = writers.get(_kind(stream))
        return None if writer is None else writer(data)

    return write


def _kind(stream: str) -> str:
    name, _, rest = stream.partition("@")
    kind = name[1:] if name.startswith("!") else rest.partition("@")[0]
    if kind.startswith("kline_"):
        return "kline"
    # So many levels of the book, each time all of them.
    return "levels" if kind.removeprefix("depth").isdigit() else kind


def _same(data: Any) -> Any:
    return data


def _ticker(venue: Venue, event: dict[str, Any]) -> dict[str, Any]:
    best = market_data.book_ticker(venue, event["s"], event["E"])
    return event | {
        "x": event["o"],
        "b": best["bidPrice"],
        "B": best["bidQty"],
        "a": best["askPrice"],
        "A": best["askQty"],
    }
