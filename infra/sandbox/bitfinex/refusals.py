"""How Bitfinex says no: an array with a number and a few words, under the status 500."""

from __future__ import annotations

from typing import Final

from infra.sandbox.engine.errors import VenueError

GENERIC: Final = 10_001
"""What it calls nearly everything; only the words tell an order that it refuses from a key without rights."""

PARAMETER: Final = 10_020
AUTHENTICATION: Final = 10_100
NONCE: Final = 10_114
RATE_LIMIT: Final = 11_010
MAINTENANCE: Final = 20_060


class Refusal(Exception):  # noqa: N818 - an answer of the venue, as it is for the other front.
    """The venue refuses: a number, words and an HTTP status."""

    def __init__(self, code: int, text: str, *, status: int = 500) -> None:
        self.code = code
        self.text = text
        self.status = status
        super().__init__(f"{code} {text}")

    def body(self) -> list[object]:
        """Return what is answered."""
        return ["error", self.code, self.text]


def invalid(field: str) -> Refusal:
    """Refuse a parameter."""
    return Refusal(PARAMETER, f"{field}: invalid")


def order_not_found() -> Refusal:
    """Refuse to find an order."""
    return Refusal(GENERIC, "Order not found.")


# What the engine refuses by Binance's numbers. The words of margin, size and lookup are the venue's own; the rest says
# why in the engine's words behind its own beginning.
_WORDS: Final[dict[int, tuple[int, str]]] = {
    -1111: (PARAMETER, "amount: invalid"),
    -1121: (PARAMETER, "symbol: invalid"),
    -2011: (GENERIC, "Order not found."),
    -2013: (GENERIC, "Order not found."),
    -2019: (GENERIC, "Invalid order: not enough tradable balance"),
    -2022: (GENERIC, "Invalid order: reduce-only, and there is nothing to reduce"),
    -4003: (PARAMETER, "amount: invalid"),
    -4014: (GENERIC, "Invalid price."),
    -4116: (GENERIC, "Invalid order: duplicate cid"),
    -4118: (GENERIC, "Invalid order: reduce-only, and there is nothing to reduce"),
    -4164: (GENERIC, "Invalid order: minimum size not reached"),
}


def from_engine(error: VenueError) -> Refusal:
    """Return what the engine refused in this venue's words."""
    if error.code == 1:
        return Refusal(MAINTENANCE, "maintenance")
    code, text = _WORDS.get(error.code, (GENERIC, f"Invalid order: {error.message}"))
    return Refusal(code, text)
