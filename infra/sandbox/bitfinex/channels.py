"""Channels of the market: made of the venue's own streams, so that both fronts always say the same."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from feature_store import clock as wall
from infra.sandbox.bitfinex import market
from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.names import INTERVALS, instrument_named, name_of, number, pair_of, plain
from infra.sandbox.bitfinex.refusals import Refusal, invalid
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.streams import Connection
from infra.sandbox.venue import Venue

_SNAPSHOT_CANDLES, _SNAPSHOT_TRADES = 240, 30
_CHECKED_LEVELS = 25
_encode = msgspec.json.encode


@dataclass(eq=False, slots=True, kw_only=True)
class Channel(Connection, ABC):
    """
    One subscription of a connection: to the hub a listener of one stream, to its client a numbered channel.

    `described` is what the confirmation says of it, `topic` what may be subscribed but once.
    """

    venue: Venue
    instrument: Instrument
    number: int
    stream: str
    topic: str
    described: dict[str, Any]
    client: Connection
    with_checksum: bool = False
    told_at: float = field(default_factory=wall.monotonic)
    # Whether its client was told what it starts from.
    has_begun: bool = False

    @property
    def carrier(self) -> Connection:
        """The connection of the client, which carries this channel beside others."""
        return self.client

    def begin(self, now_ms: int) -> None:
        """Send what a client starts from, once, and not over a socket that is frozen: changes of nothing are none."""
        if not self.has_begun and not self.client.frozen_by:
            self.has_begun = True
            self.tell_start(now_ms)

    @abstractmethod
    def tell_start(self, now_ms: int) -> None:
        """Send the present state."""

    def push(self, frame: str) -> None:
        """Take one event of the stream; of one that comes while the socket is frozen, nothing is remembered."""
        if self.client.frozen_by:
            return
        self.begin(self.venue.ticked_ms)
        for message in self.messages(msgspec.json.decode(frame, type=dict[str, Any])):
            self.send(*message)

    @abstractmethod
    def messages(self, event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Return what an event of the stream is to a client."""

    def send(self, *message: Any) -> None:
        """Send one message of this channel, unless its socket is frozen."""
        if self.client.frozen_by:
            return
        self.told_at = wall.monotonic()
        self.client.push(_encode([self.number, *message]).decode())

    def asked(self, now_ms: int, *place: str, **body: Any) -> Call:
        """Return the question that REST would be asked."""
        return Call(self.venue, now_ms, body, place)


@dataclass(eq=False, slots=True, kw_only=True)
class TickerChannel(Channel):
    """Bid, ask and the statistics of a day."""

    def tell_start(self, now_ms: int) -> None:
        """Send the present ones."""
        if self.venue.last[self.venue.index[self.instrument.symbol]]:
            self.send(market.ticker_row(self.venue, self.instrument, now_ms))

    def messages(self, event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Return the present ones; the stream only says when."""
        yield (market.ticker_row(self.venue, self.instrument, event["E"]),)


@dataclass(eq=False, slots=True, kw_only=True)
class CandleChannel(Channel):
    """Candles: the newest again and again, and once more when it is finished."""

    timeframe: str

    def tell_start(self, now_ms: int) -> None:
        """Send the newest ones, newest first."""
        call = self.asked(now_ms, self.timeframe, name_of(self.instrument), "hist", limit=_SNAPSHOT_CANDLES)
        self.send(market.candles(call))

    def messages(self, event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Return a candle."""
        k = event["k"]
        yield (market.candle_row(k["t"], k["o"], k["h"], k["l"], k["c"], k["v"]),)


@dataclass(eq=False, slots=True, kw_only=True)
class TradeChannel(Channel):
    """Everybody's trades, each told twice: when it happened, and when it is settled."""

    def tell_start(self, now_ms: int) -> None:
        """Send the newest ones."""
        self.send(market.trades(self.asked(now_ms, name_of(self.instrument), limit=_SNAPSHOT_TRADES)))

    def messages(self, event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Return a trade."""
        row = market.trade_row(event["t"], event["T"], event["q"], event["p"], is_sale=event["m"])
        yield "te", row
        yield "tu", row


@dataclass(eq=False, slots=True, kw_only=True)
class BookChannel(Channel):
    """Levels by price; a change names a level, and a count of zero takes it away."""

    length: int
    _known: dict[Decimal, Decimal] = field(default_factory=dict)

    def tell_start(self, now_ms: int) -> None:
        """Send the present levels."""
        del now_ms
        self._known = self._levels()
        self.send([[number(price), 1, number(amount)] for price, amount in self._known.items()])

    def messages(self, event: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Return what has changed since the last time, and then how to check it."""
        del event
        before, self._known = self._known, self._levels()
        for price in before.keys() - self._known.keys():
            yield ([number(price), 0, 1 if before[price] > 0 else -1],)
        for price, amount in self._known.items():
            if price in before and before[price] * amount < 0:
                # It was on the other side; a client keeps each side for itself.
                yield ([number(price), 0, 1 if before[price] > 0 else -1],)
            if before.get(price) != amount:
                yield ([number(price), 1, number(amount)],)
        if self.with_checksum:
            yield "cs", checksum(self._known)

    def _levels(self) -> dict[Decimal, Decimal]:
        if not self.venue.last[self.venue.index[self.instrument.symbol]]:
            return {}
        return dict(market.book_levels(self.venue, self.instrument, self.length))


def checksum(levels: dict[Decimal, Decimal]) -> int:
    """Return the signed CRC32 over the first 25 bids and asks, each pair of them in turn."""
    bids = [(price, amount) for price, amount in levels.items() if amount > 0]
    asks = [(price, amount) for price, amount in levels.items() if amount < 0]
    parts: list[str] = []
    for place in range(_CHECKED_LEVELS):
        for side in (bids, asks):
            parts += [plain(one) for one in side[place]] if place < len(side) else []
    found = zlib.crc32(":".join(parts).encode())
    return found - (1 << 32) if found >= 1 << 31 else found


def channel_for(venue: Venue, said: dict[str, Any], channel_number: int, client: Connection) -> Channel:
    """
    Return the channel a client asks for.

    Raises:
        Refusal: There is none of that kind, or not of that contract.
    """
    kind = said.get("channel")
    if kind == "candles":
        return _candles(venue, said, channel_number, client)
    kinds: dict[str, type[Channel]] = {"ticker": TickerChannel, "trades": TradeChannel, "book": BookChannel}
    made = kinds.get(str(kind))
    if made is None:
        raise Refusal(10_300, "channel: unknown")
    one = instrument_named(venue, said.get("symbol"))
    described: dict[str, Any] = {"symbol": name_of(one), "pair": pair_of(one)}
    more: dict[str, Any] = {}
    stream = {"ticker": "ticker", "trades": "trade", "book": "depth"}[str(kind)]
    if made is BookChannel:
        length, precision = str(said.get("len", 25)), said.get("prec", "P0")
        if precision != "P0" or length not in {str(each) for each in market.BOOK_LENGTHS}:
            raise invalid("prec" if precision != "P0" else "len")
        described |= {"prec": precision, "freq": said.get("freq", "F0"), "len": length}
        more = {"length": int(length)}
    return made(
        socket=client.socket,
        combined=False,
        transport=client.transport,
        venue=venue,
        instrument=one,
        number=channel_number,
        stream=f"{one.symbol.lower()}@{stream}",
        topic=f"{kind}:{one.symbol}",
        described=described,
        client=client,
        **more,
    )


def _candles(venue: Venue, said: dict[str, Any], channel_number: int, client: Connection) -> Channel:
    parts = str(said.get("key")).split(":", 2)
    if len(parts) != 3 or parts[0] != "trade" or parts[1] not in INTERVALS:
        raise invalid("key")
    one = instrument_named(venue, parts[2])
    return CandleChannel(
        socket=client.socket,
        combined=False,
        transport=client.transport,
        venue=venue,
        instrument=one,
        number=channel_number,
        stream=f"{one.symbol.lower()}@kline_{INTERVALS[parts[1]]}",
        topic=f"candles:{said['key']}",
        described={"key": said["key"]},
        client=client,
        timeframe=parts[1],
    )
