"""How a position ends, as data: stop, targets, break-even, trailing, time stop, buffer before liquidation."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import msgspec

from inference.domain.errors import PolicyError
from inference.domain.policy import BARRIERS, EXIT_PROFILE_NAME, Policy
from inference.domain.policy_rules import Bounds

MAX_TARGETS: Final = 4
"""A venue holds ten conditional orders in a symbol; a stop, its successor and orders in doubt need the rest."""

_D = Decimal
# Shares and margins are whole numbers of it, so that the compiled engine counts them exactly.
_FINEST = _D("1e-8")
_USELESS = ", after which nothing is left, or which it lacks"


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A price at which a part of a position is taken.

    Its distance from the reference price is said in one of two units, as a multiple: `r`, of the distance to the
    planned stop, or `atr`, of the average true range. `share` is a fraction of the original quantity.
    """

    share: Decimal
    r: Decimal | None = None
    atr: Decimal | None = None


class ExitProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The rules by which one position ends.

    R is the distance from the reference price to the planned stop, `stop_atr` average true ranges; the range is that
    of the decision, for the whole life of a trade. Targets are numbered from 1. What no target takes, and what is left
    after a target where others follow, ends at whichever of stop, trailing stop, next target and time comes first.
    """

    name: str
    stop_atr: Decimal = _D(3)
    targets: tuple[Target, ...] = ()
    # The hard outer stop, in R from the average entry price: no stop lies beyond it, and a price that does while
    # something is open is an emergency. None: there is none.
    stop_cap_r: Decimal | None = None
    # The target after which the stop moves to where a close loses nothing; 0: never.
    break_even_after: int = 0
    # What must be left there beside the fees of both sides, as a share of the entry's worth: for slippage.
    break_even_margin: Decimal = _D("0.0005")
    # How far, in average true ranges, the stop follows the best close since the entry. None: it does not.
    trail_atr: Decimal | None = None
    # It follows once this target was reached (0: none is waited for) and a close has gained so many R.
    trail_after_target: int = 0
    trail_after_r: Decimal = _D(0)
    # Candles from the decision to the end. None: as many as the horizon that the prediction looks ahead.
    time_stop_candles: int | None = None
    # How near the liquidation price a price may come: the larger of a share of that price and average true ranges.
    liquidation_buffer: Decimal = _D("0.01")
    liquidation_buffer_atr: Decimal = _D(1)

    def __post_init__(self) -> None:
        """
        Refuse values outside their bounds, and rules that contradict each other.

        Raises:
            PolicyError: The message names the profile, the rule, what it needs and what it was.
        """
        if not EXIT_PROFILE_NAME.fullmatch(self.name):
            raise PolicyError(
                f"An exit profile's name needs capitals, digits and underscores, at most 40, was {self.name[:60]!r}"
            )
        for name, bounds in _BOUNDS.items():
            self._check(name, getattr(self, name), bounds)
        if len(self.targets) > MAX_TARGETS:
            raise self._refused(f"targets must be at most {MAX_TARGETS}, were {len(self.targets)}")
        for number, target in enumerate(self.targets, 1):
            self._check_target(f"target {number}", target)
        self._check_fineness("break_even_margin", self.break_even_margin)
        for holds, message in self._agreements():
            if not holds:
                raise self._refused(message)

    @property
    def target_multiples(self) -> tuple[Decimal, ...]:
        """The distances of all targets in average true ranges."""
        return tuple(_multiple(target, self.stop_atr) for target in self.targets)

    @property
    def has_runner(self) -> bool:
        """Whether a part of the position has no target."""
        return sum((target.share for target in self.targets), _D(0)) < 1

    def _agreements(self) -> list[tuple[bool, str]]:
        count, total = len(self.targets), sum((target.share for target in self.targets), _D(0))
        multiples = self.target_multiples
        # After the last target nothing is left, unless a part has none.
        useful = count if self.has_runner else max(0, count - 1)
        waits = self.trail_after_target > 0 or self.trail_after_r > 0
        return [
            (total <= 1, f"shares of its targets must not exceed 1 together, were {total}"),
            (
                all(low < high for low, high in pairwise(multiples)),
                f"each target must lie beyond the one before, were {', '.join(map(str, multiples))} ranges away",
            ),
            (self.break_even_after <= useful, f"break_even_after names target {self.break_even_after}{_USELESS}"),
            (self.trail_after_target <= useful, f"trail_after_target names target {self.trail_after_target}{_USELESS}"),
            (self.trail_atr is not None or not waits, "it says when to trail, and not how far: set trail_atr"),
        ]

    def _check_target(self, which: str, target: Target) -> None:
        if (target.r is None) == (target.atr is None):
            raise self._refused(f"{which} needs its distance in one unit, r or atr")
        for name, bounds in _TARGET_BOUNDS.items():
            self._check(f"{which}: {name}", getattr(target, name), bounds)
        self._check_fineness(f"{which}: share", target.share)

    def _check_fineness(self, name: str, value: Decimal) -> None:
        if value % _FINEST != 0:
            raise self._refused(f"{name} must have at most 8 decimal places, was {value}")

    def _check(self, name: str, value: Decimal | int | None, bounds: Bounds) -> None:
        if value is not None and not bounds.hold(_D(value)):
            raise self._refused(f"{name} must lie in {bounds.text}, was {value}")

    def _refused(self, message: str) -> PolicyError:
        return PolicyError(f"Exit profile {self.name}: {message}")


def _multiple(target: Target, stop_atr: Decimal) -> Decimal:
    if target.atr is not None:
        return target.atr
    return (target.r or _D(0)) * stop_atr


_BOUNDS: Mapping[str, Bounds] = {
    name: Bounds.parse(text)
    for name, text in (
        ("stop_atr", "[0.01, 100]"),
        ("stop_cap_r", "[1, 10]"),
        ("break_even_after", f"[0, {MAX_TARGETS}]"),
        ("break_even_margin", "[0, 0.05]"),
        ("trail_atr", "[0.01, 100]"),
        ("trail_after_target", f"[0, {MAX_TARGETS}]"),
        ("trail_after_r", "[0, 100]"),
        ("time_stop_candles", "[1, 10000]"),
        ("liquidation_buffer", "[0, 0.5)"),
        ("liquidation_buffer_atr", "[0, 100]"),
    )
}
_TARGET_BOUNDS: Mapping[str, Bounds] = {
    "share": Bounds.parse("(0, 1]"),
    "r": Bounds.parse("[0.01, 1000]"),
    "atr": Bounds.parse("[0.01, 10000]"),
}


def barriers_profile(policy: Policy) -> ExitProfile:
    """
    Return the stop, the target and the time barrier of a policy, and nothing else: what `exits.barriers` does.

    It has no buffer before liquidation, as those have none; the policy's `min_liquidation_stops` stands for it.
    """
    return ExitProfile(
        name=BARRIERS,
        stop_atr=policy.stop_atr_multiple,
        targets=(Target(atr=policy.target_atr_multiple, share=_D(1)),),
        time_stop_candles=policy.max_holding_candles,
        liquidation_buffer=_D(0),
        liquidation_buffer_atr=_D(0),
    )


# Target 1.5 R, stop 1 R, trailing by 2 ranges (SPEC EX-019 to EX-021). The rows leave open what R is: three ranges, as
# the default policy. A trail of 2 from the entry would take the place of a stop of 3 at the first close, and 1 R would
# mean nothing; it begins once 1 R is gained. Time and buffer are ours (C85, U32).
DEFAULT: Final = ExitProfile(
    name="DEFAULT",
    targets=(Target(r=_D("1.5"), share=_D(1)),),
    trail_atr=_D(2),
    trail_after_r=_D(1),
)
# EX-022 to EX-027 as C59 and U32 resolve them: 30 % at 1 R, 70 % at 2 R or at the trail, whichever comes first; planned
# stop 1 R, hard outer stop 1.5 R; break-even after costs. Two hours are 24 candles of five minutes, the timeframe that
# decides; of a horizon of twelve that is twice, which is what distinguishes the profile: DEFAULT keeps to the horizon.
CHALLENGE_100: Final = ExitProfile(
    name="CHALLENGE_100",
    targets=(Target(r=_D(1), share=_D("0.3")), Target(r=_D(2), share=_D("0.7"))),
    stop_cap_r=_D("1.5"),
    break_even_after=1,
    trail_atr=_D(2),
    trail_after_target=1,
    time_stop_candles=24,
)

BUILT_IN: Mapping[str, ExitProfile] = MappingProxyType({one.name: one for one in (DEFAULT, CHALLENGE_100)})
"""The profiles that nobody has to write."""
