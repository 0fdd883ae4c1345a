"""What a round trip costs: fees, spread, slippage, and funding where a position is held over its boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from inference.domain.policy import Policy

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingCosts:
    """
    Costs of one side of a trade, as fractions of its notional; a round trip pays each of them twice.

    The decision chain counts them alike: two fees, two slippages, and the whole spread crossed once.
    """

    taker_fee: float
    half_spread: float
    slippage: float

    def __post_init__(self) -> None:
        """Refuse costs that no market has: a percentage given for a fraction, mostly."""
        for name in ("taker_fee", "half_spread", "slippage"):
            if not 0 <= getattr(self, name) <= 0.1:
                raise BadInputError(f"{name} is a fraction of notional in [0, 0.1], was {getattr(self, name)}")

    @classmethod
    def of(cls, policy: Policy, *, half_spread: float) -> Self:
        """Return the costs that a policy counts on, with a spread of one's own: a policy reads it from the quote."""
        return cls(taker_fee=float(policy.taker_fee), slippage=float(policy.slippage), half_spread=half_spread)

    @property
    def round_trip(self) -> float:
        """What entering and leaving cost, as a fraction of notional."""
        return 2 * (self.taker_fee + self.half_spread + self.slippage)


@dataclass(frozen=True, slots=True, eq=False)
class Funding:
    """
    Funding rates of one instrument at their boundaries, oldest first; longs pay a positive rate, shorts receive it.

    Rates of all boundaries up to the newest candle must be there: one that is absent is taken for none.
    """

    time_ms: Times
    rate: Floats

    def __post_init__(self) -> None:
        """Refuse boundaries that do not rise, and rates that are no numbers."""
        if self.time_ms.shape != self.rate.shape or (np.diff(self.time_ms) <= 0).any():
            raise BadInputError("Funding needs one rate for each boundary, boundaries rising")
        if not (np.isfinite(self.rate).all() and (np.abs(self.rate) < 0.1).all()):
            raise BadInputError("Funding rates are fractions of notional below 0.1, not percentages")

    def between(self, entry_ms: Times, exit_ms: Times) -> Floats:
        """Return the sum of rates at boundaries after each entry, up to and including its exit."""
        paid = np.concatenate([[0.0], np.cumsum(self.rate)])
        first, last = (np.searchsorted(self.time_ms, moments, side="right") for moments in (entry_ms, exit_ms))
        return np.asarray(np.where(last > first, paid[last] - paid[first], 0.0), np.float64)


def net_of_costs(
    moved: Floats, *, direction: int, costs: TradingCosts, entry_ms: Times, exit_ms: Times, funding: Funding | None
) -> Floats:
    """
    Return what is left of log returns of the price for one who was long (1) or short (-1), as log returns.

    Raises:
        BadInputError: The direction is neither, or the funding paid on the way is all of the notional.
    """
    if direction not in (1, -1):
        raise BadInputError(f"Direction is 1 (long) or -1 (short), was {direction}")
    paid = np.zeros(len(moved)) if funding is None else direction * funding.between(entry_ms, exit_ms)
    share = costs.round_trip + paid
    if (share >= 1).any():
        raise BadInputError("Funding between entry and exit eats all of the notional; look at its rates")
    return direction * moved + np.log1p(-share)
