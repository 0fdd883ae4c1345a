"""What a source says: figures about an asset, or about the whole market, with the moment it claims for them."""

from __future__ import annotations

from dataclasses import dataclass

MARKET = ""
"""Subject of a figure that is about no asset in particular."""
SENTIMENT = "sentiment"
TEXTS_POLLED, MARKETS_POLLED = "texts_polled", "markets_polled"
"""That a source of texts, or of market data, answered: silence is told from deafness by it."""


@dataclass(frozen=True, slots=True, order=True)
class Figure:
    """One number about one subject: an asset's ticker, or MARKET."""

    subject: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Observation:
    """
    One text, or the figures of one asset at one moment.

    `item` names it at its source, the same each time it is served. `claimed_ms` is when the source says that it
    happened; it is kept, but decides nothing alone: what counts is when it arrived here. `first_ms` is a moment before
    which the item was never served under this name, None where nobody vouches for one.
    """

    item: str
    claimed_ms: int | None
    figures: tuple[Figure, ...]
    first_ms: int | None = None
