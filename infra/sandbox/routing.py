"""What a route is: a handler, who may ask, and what it weighs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from infra.sandbox.handlers.call import Handler


class Security(Enum):
    """Who may ask."""

    NONE = "none"
    KEY = "key"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Route:
    """
    A handler with its admission and weight.

    `weight_up_to` are weights of requests for at most so many rows; `weight_of_all` is that of all symbols at once.
    """

    handler: Handler
    security: Security = Security.NONE
    weight: int = 1
    weight_up_to: tuple[tuple[int, int], ...] = ()
    weight_of_all: int | None = None

    def weighs(self, limit: int, *, names_symbol: bool = True) -> int:
        """Return the weight of a request for so many rows, of one symbol or of all."""
        if self.weight_of_all is not None and not names_symbol:
            return self.weight_of_all
        return next((weight for most, weight in self.weight_up_to if limit <= most), self.weight)
