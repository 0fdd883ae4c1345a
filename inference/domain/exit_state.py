"""What the exit brain is told, what it remembers of a trade, and what it asks for; all of it fit for the journal."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from feature_store.errors import BadInputError
from inference.domain.exit_profile import ExitProfile
from inference.domain.market import Instrument
from inference.domain.signal import Direction
from inference.domain.trade_end import ExitReason


class ExitCause(StrEnum):
    """Why a position, or a part of it, was closed."""

    STOP = "STOP"
    # The stop, moved to where a close loses nothing.
    BREAK_EVEN = "BREAK_EVEN"
    TRAILING_STOP = "TRAILING_STOP"
    TARGET = "TARGET"
    TIME_STOP = "TIME_STOP"
    LIQUIDATION_BUFFER = "LIQUIDATION_BUFFER"
    EMERGENCY = "EMERGENCY"

    @property
    def is_alarming(self) -> bool:
        """Whether a person is told at once."""
        return self in (ExitCause.LIQUIDATION_BUFFER, ExitCause.EMERGENCY)

    @property
    def reason(self) -> ExitReason:
        """What a trade that ended so states as its reason."""
        return ExitReason.TIME_BARRIER if self is ExitCause.TIME_STOP else ExitReason(self.value)


class TradeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a trade as it is decided, and stays so.

    Prices are quote currency per base unit; `reference_price` is the side of the book that the entry crosses, `atr` an
    average true range in the same unit. `fee` is the taker fee of one side, a share of notional. Times are UTC
    milliseconds. `liquidation_price` is None where none is known.
    """

    direction: Direction
    reference_price: Decimal
    atr: Decimal
    instrument: Instrument
    fee: Decimal
    timeframe_ms: int
    horizon_candles: int
    planned_ms: int
    liquidation_price: Decimal | None = None

    def __post_init__(self) -> None:
        """
        Refuse what no trade can have.

        Raises:
            BadInputError: A price or a range is not a positive number, a fee no share, a duration no duration.
        """
        if self.direction is Direction.FLAT:
            raise BadInputError("Exits need a direction, LONG or SHORT, was FLAT")
        _positive("reference_price", self.reference_price)
        _positive("atr", self.atr)
        if self.liquidation_price is not None:
            _positive("liquidation_price", self.liquidation_price)
        if not (self.fee.is_finite() and 0 <= self.fee < Decimal("0.5")):
            raise BadInputError(f"fee must lie in [0, 0.5), was {self.fee}")
        if min(self.timeframe_ms, self.horizon_candles) < 1 or self.planned_ms < 0:
            raise BadInputError(
                "Exits need a timeframe and a horizon of at least 1 and a time that is not negative, were "
                f"{self.timeframe_ms}, {self.horizon_candles} and {self.planned_ms}"
            )

    @property
    def sign(self) -> int:
        """1 of a long position, -1 of a short one."""
        return 1 if self.direction is Direction.LONG else -1


class ExitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """By which rules a trade ends, and of which facts: with it a journal is read without the file of profiles."""

    profile: ExitProfile
    facts: TradeFacts


class Held(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """
    What has executed of a trade so far, in base units; cumulative, so that hearing it twice changes nothing.

    `cost` is the exact sum of quantity times price of the entry. `exited` is all that left, by whomever; `taken` what
    of it each target took, by its number.
    """

    entered: Decimal
    cost: Decimal
    exited: Decimal = Decimal(0)
    taken: tuple[Decimal, ...] = ()

    def __post_init__(self) -> None:
        """
        Refuse quantities that are no quantities.

        Raises:
            BadInputError: One is negative or no number, or something entered at no price.
        """
        for name, values in (("entered", (self.entered,)), ("exited", (self.exited,)), ("taken", self.taken)):
            for value in values:
                if not value.is_finite() or value < 0:
                    raise BadInputError(f"{name} must be a number not below 0, was {value}")
        if self.entered > 0:
            _positive("cost", self.cost)


class CandleClosed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A candle of the traded series closed; `close` is None where the grid of time went on without a candle."""

    close_ms: int
    close: Decimal | None

    def __post_init__(self) -> None:
        """
        Refuse a close that is no price.

        Raises:
            BadInputError: It is not a positive number.
        """
        if self.close is not None:
            _positive("close", self.close)


class Priced(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A price between closes, the mark where the venue has one, and the liquidation price that it now states."""

    at_ms: int
    price: Decimal
    liquidation_price: Decimal | None = None

    def __post_init__(self) -> None:
        """
        Refuse what is no price.

        Raises:
            BadInputError: One is not a positive number.
        """
        _positive("price", self.price)
        if self.liquidation_price is not None:
            _positive("liquidation_price", self.liquidation_price)


class EmergencyCalled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The emergency stop, or a person, wants the position closed now."""

    at_ms: int


Seen = CandleClosed | Priced | EmergencyCalled
"""What the worker tells the brain; what has executed is told by orders."""

Observation = Held | Seen


class ExitState(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the brain remembers of one trade.

    `best_close` is the best close since the entry, the reference price before the first; `seen_ms` when the newest
    close was; `until_ms` when it has been held long enough; `reached` the highest target reached; `closing` why all
    of it must be closed at market, once that was decided: the first cause stays.
    """

    facts: TradeFacts
    target_prices: tuple[Decimal, ...]
    stop_price: Decimal
    stop_cause: ExitCause
    until_ms: int
    best_close: Decimal
    seen_ms: int
    held: Held
    reached: int = 0
    closing: ExitCause | None = None

    @property
    def open_quantity(self) -> Decimal:
        """What is still open, in base units."""
        return max(Decimal(0), self.held.entered - self.held.exited)


class HoldStop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The venue is to hold a reduce-only stop at this price for all that is open, in place of any before it."""

    price: Decimal
    quantity: Decimal
    cause: ExitCause


class HoldTarget(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The venue is to hold a reduce-only target at this price for so much, in place of the one of this number."""

    number: int
    price: Decimal
    quantity: Decimal


class DropTarget(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The venue need not hold the target of this number any longer."""

    number: int


class CloseAll(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All that is open leaves at market now, reduce-only; the stop stays until it has."""

    cause: ExitCause


ExitAction = CloseAll | HoldStop | HoldTarget | DropTarget


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a trade at a moment: the stop and targets that the venue holds, and whether all must leave."""

    stop: HoldStop | None = None
    targets: tuple[HoldTarget, ...] = ()
    close: CloseAll | None = None


def _positive(name: str, value: Decimal) -> None:
    if not value.is_finite() or value <= 0:
        raise BadInputError(f"{name} must be a positive number, was {value}")
