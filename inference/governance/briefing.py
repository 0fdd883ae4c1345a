"""What the committee is told: every input by name, and nothing else is consulted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from inference.domain.policy import Policy
from inference.domain.position import Account, Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    How the journal stands.

    `unsynced` counts entries that a power cut would lose. `reproduced` says whether the last decision, made again from
    what was recorded of it, came out the same; None before there was one.
    """

    is_whole: bool
    unsynced: int
    reproduced: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model that trades: whether the gates let it, and what was seen of it live."""

    gated: bool
    is_poor: bool
    is_biased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """
    What other workers of the same desk said of themselves, of those that were heard lately.

    `expected` counts those that should be heard, `heard` those that were. `careful` and `exits_only` count their
    stances. `notional` is their gross notional by symbol, `equity` the sum of their accounts, in quote currency.
    """

    expected: int
    heard: int
    careful: int
    exits_only: int
    notional: Mapping[str, Decimal]
    equity: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Briefing:
    """
    The state that is voted on, at one closed candle.

    `volatility` is the average true range as a share of price, for each symbol that is considered. `regimes` is the
    regime of each. `real_money` says that the mode is live. `model` is None where none is loaded, `others` where this
    worker belongs to no federation.
    """

    policy: Policy
    account: Account
    positions: Mapping[str, Position]
    in_flight: Mapping[str, Decimal]
    volatility: Mapping[str, Decimal]
    regimes: Mapping[str, str]
    real_money: bool
    record: Record
    model: Model | None
    others: Others | None = None

    @property
    def notional(self) -> dict[str, Decimal]:
        """What each symbol carries, entries in flight included, in quote currency."""
        carried = {symbol: one.notional for symbol, one in self.positions.items()}
        for symbol, notional in self.in_flight.items():
            carried[symbol] = carried.get(symbol, Decimal(0)) + notional
        return carried
