"""The kinds of market data beside candles: columns with units, what a row's time is, and when it could be known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError


class Content(StrEnum):
    """What a column holds."""

    NUMBER = "number"
    WHOLE = "whole number"
    FLAG = "yes or no"
    TEXT = "text"


class Known(StrEnum):
    """From when on a row could be known, before the stated delay."""

    AT_TIME = "at its time"
    AT_CLOSE = "at the end of its timeframe"
    AT_ARRIVAL = "when it reached us"


Partition = Literal["month", "day", "hour", "all"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column with its unit and the values that make sense; `may_lack` allows NaN where a venue says nothing."""

    name: str
    unit: str
    content: Content = Content.NUMBER
    least: float | None = None
    above: float | None = None
    most: float | None = None
    may_lack: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One kind of market data.

    Attributes:
        name: Its folder in the lake, and its name for people.
        describes: What it is.
        time: What a row's time means.
        known: From when on a row could be known.
        delay_ms: How much later than that it is taken to have been available, where it was fetched afterwards.
        columns: What a row holds beside its time.
        key: Columns that, with the time, tell rows apart.
        has_timeframe: Whether rows come once per timeframe; then times are multiples of it.
        grid_ms: What times are multiples of, where there is no timeframe.
        partition: How long a stretch one file holds: rewriting it must stay cheap.
        changes_only: Whether a row that repeats the one before it is left out.
        is_candle: Whether open, high, low and close have to agree with each other.
    """

    name: str
    describes: str
    time: str
    known: Known
    delay_ms: int
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    has_timeframe: bool = False
    grid_ms: int = 1
    partition: Partition = "month"
    changes_only: bool = False
    is_candle: bool = False

    @property
    def values(self) -> tuple[str, ...]:
        """Columns that a correction may change."""
        return tuple(column.name for column in self.columns if column.name not in self.key)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Subject:
    """What rows of a kind are about: an instrument at a venue, in a timeframe where the kind has one."""

    venue: str
    symbol: str
    timeframe: Timeframe | None = None

    @classmethod
    def of(cls, kind: Kind, series: Series) -> Subject:
        """Return what a kind holds of a candle series."""
        return cls(series.venue, series.symbol, series.timeframe if kind.has_timeframe else None)

    @property
    def key(self) -> str:
        """A name that is unique and readable."""
        return "|".join([self.venue, self.symbol, *([str(self.timeframe)] if self.timeframe else [])])


_SECOND_MS, _MINUTE_MS = 1_000, 60_000
_PRICE = "quote per base"
_PRICES = tuple(Column(name, _PRICE, above=0) for name in ("open", "high", "low", "close"))
_TRADE = (
    Column("trade_id", "the venue's number", Content.WHOLE, least=0),
    Column("price", _PRICE, above=0),
    Column("quantity", "base", above=0),
    Column("is_buyer_maker", "whether the seller took", Content.FLAG),
)

FUNDING = Kind(
    name="funding",
    describes="what longs paid shorts at a settlement, as a share of notional",
    time="settlement, in whole seconds: venues stamp some milliseconds late, differently in each of their sources",
    known=Known.AT_TIME,
    delay_ms=_MINUTE_MS,
    columns=(Column("funding_rate", "share of notional per settlement", least=-1, most=1),),
    grid_ms=_SECOND_MS,
)
MARK = Kind(
    name="mark",
    describes="candles of the mark price, from which margin and liquidation are reckoned",
    time="open of the candle",
    known=Known.AT_CLOSE,
    delay_ms=_SECOND_MS,
    columns=_PRICES,
    has_timeframe=True,
    is_candle=True,
)
INDEX = Kind(
    name="index",
    describes="candles of the index price, an average over spot venues",
    time="open of the candle",
    known=Known.AT_CLOSE,
    delay_ms=_SECOND_MS,
    columns=_PRICES,
    has_timeframe=True,
    is_candle=True,
)
OPEN_INTEREST = Kind(
    name="open-interest",
    describes="contracts that are open",
    time="end of the period over which the venue counted",
    known=Known.AT_TIME,
    delay_ms=5 * _MINUTE_MS,
    columns=(
        Column("open_interest", "base", least=0),
        Column("open_interest_value", "quote", least=0, may_lack=True),
    ),
    has_timeframe=True,
)
FILTERS = Kind(
    name="filters",
    describes="what an instrument's orders must look like, and whether it trades; a row for each change",
    time="when we saw it so for the first time",
    known=Known.AT_ARRIVAL,
    delay_ms=0,
    columns=(
        Column("price_tick", _PRICE, above=0, may_lack=True),
        Column("quantity_step", "base", above=0, may_lack=True),
        Column("least_quantity", "base", least=0, may_lack=True),
        Column("most_quantity", "base", least=0, may_lack=True),
        Column("least_notional", "quote", least=0, may_lack=True),
        Column("contract_size", "base per contract", above=0, may_lack=True),
        Column("status", "the venue's word", Content.TEXT),
        Column("listed_ms", "UTC milliseconds, 0 where the venue does not say", Content.WHOLE, least=0),
    ),
    partition="all",
    changes_only=True,
)
TRADES = Kind(
    name="trades",
    describes="single trades of everybody",
    time="when it was made",
    known=Known.AT_TIME,
    delay_ms=_SECOND_MS,
    columns=_TRADE,
    key=("trade_id",),
    partition="hour",
)
AGGREGATE_TRADES = Kind(
    name="aggregate-trades",
    describes="trades of everybody, those of one order at one price as one; their numbers are not those of trades",
    time="when they were made",
    known=Known.AT_TIME,
    delay_ms=_SECOND_MS,
    columns=_TRADE,
    key=("trade_id",),
    partition="hour",
)
BOOK = Kind(
    name="book",
    describes="snapshots of the best levels of the order book; a row for each level",
    time="when the venue made the snapshot, or when it came, where the venue does not say",
    known=Known.AT_ARRIVAL,
    delay_ms=0,
    columns=(
        Column("update_id", "the venue's number, 0 where it gives none", Content.WHOLE, least=0),
        Column("is_bid", "bid or ask", Content.FLAG),
        Column("level", "0 is the best", Content.WHOLE, least=0),
        Column("price", _PRICE, above=0),
        Column("quantity", "base", above=0),
    ),
    key=("update_id", "is_bid", "level"),
    partition="day",
)

KINDS: tuple[Kind, ...] = (FUNDING, MARK, INDEX, OPEN_INTEREST, FILTERS, TRADES, AGGREGATE_TRADES, BOOK)
"""All kinds, in the order in which people read them."""


def kind_named(name: str) -> Kind:
    """
    Return the kind of a name.

    Raises:
        BadInputError: There is none.
    """
    found = next((kind for kind in KINDS if kind.name == name), None)
    if found is None:
        raise BadInputError(f"Unknown kind of market data {name!r}; use one of: {', '.join(map(str, KINDS))}")
    return found
