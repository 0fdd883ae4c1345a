"""What a feature of one's own is: a pure function over the last candles, with what people must know of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES, TAIL

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.candle import CandleBlock

    Floats = npt.NDArray["np.float64"]

    import numpy as np

LONGEST_LOOKBACK = 10_000
"""More candles than this are no window but a history."""

BLOCK = 64
"""Windows that a vectorised function gets at once, always: a sum over rows of another shape may end in other bits."""

_RULES_VERSION = 1
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """
    The newest closed candles, oldest first, as arrays that cannot be written to.

    Each has the length of the feature's lookback; where the function is vectorised, [64, lookback].
    """

    open_time_ms: npt.NDArray[np.int64]
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats


Compute = Callable[[Window], "float | Floats"]
Oracle = Callable[["CandleBlock"], "Floats"]


@dataclass(frozen=True, slots=True, eq=False)
class ExtensionFeature:
    """One feature of one's own. It is called as the function it was made from."""

    name: str
    compute: Compute
    lookback: int
    warm_up: int
    formula: str
    source: str
    tells: str
    parameters: str
    family: str
    nan_policy: str
    vectorised: bool
    oracle: Oracle | None
    tolerance: float
    unit: str = ""

    def __call__(self, window: Window) -> float | Floats:
        """Compute it on a window."""
        return self.compute(window)


def feature(
    *,
    lookback: int,
    formula: str,
    source: str,
    tells: str = "",
    parameters: str = "No reason is stated.",
    family: str = "my own",
    warm_up: int | None = None,
    nan_policy: str = "NaN during warm-up, and where the function gives no finite number",
    vectorised: bool = False,
    oracle: Oracle | None = None,
    tolerance: float = 1e-9,
    unit: str = "",
) -> Callable[[Compute], ExtensionFeature]:
    """
    Declare a function over a window of closed candles as a feature; its name becomes the feature's.

    The function sees nothing but the window, so it cannot look ahead. It must depend on nothing else: no clock, no
    file, no global that changes, no randomness. Models read it as they read all inputs, cut off at 20 either way,
    so give it no unit: a distance as a share of the price, not a price. `qtctl features check` asks whether it has one.

    What only the oracle needs is imported inside it: the worker's environment holds numpy and little else.

    Args:
        lookback: Candles in the window, the newest included.
        formula: What it computes, as people write it.
        source: Where it comes from: a paper, a book, yourself.
        tells: What the number says; the function's docstring, if left out.
        parameters: Why the parameters are what they are.
        family: What it is about; the catalogue sorts by it.
        warm_up: Candles at the start of a series without a value; by default, and at least, lookback - 1.
        nan_policy: When there is no value.
        vectorised: Whether it takes arrays [64, lookback] and gives [64], which is faster.
        oracle: Another way to the same numbers, for all candles of a block at once, such as a TA-Lib call.
        tolerance: How far the two may be apart, relative to the value (or a thousandth of its spread).
        unit: What it is measured in, where it has a unit on purpose, such as the logarithm of a turnover; else nothing.

    Raises:
        BadInputError: What is stated cannot be.
    """

    def declare(compute: Compute) -> ExtensionFeature:
        name = getattr(compute, "__name__", "")
        texts = {
            "formula": formula, "source": source, "tells": tells, "parameters": parameters, "family": family,
            "nan_policy": nan_policy, "unit": unit,
        }  # fmt: skip
        _refuse_unless(
            name,
            (callable(compute), f"@feature(...) takes a function, found {_said(compute)}"),
            (_is_whole(lookback), f"lookback must be a whole number, was {_said(lookback)}"),
            (warm_up is None or _is_whole(warm_up), f"warm_up must be a whole number, was {_said(warm_up)}"),
            (
                _is_whole(tolerance) or isinstance(tolerance, float),
                f"tolerance must be a number, was {_said(tolerance)}",
            ),
            (isinstance(vectorised, bool), f"vectorised must be True or False, was {_said(vectorised)}"),
            (oracle is None or callable(oracle), f"oracle must be a function, was {_said(oracle)}"),
            *((isinstance(text, str), f"{which} must be a text, was {_said(text)}") for which, text in texts.items()),
        )
        least = lookback - 1
        warm = least if warm_up is None else warm_up
        taken = name in FEATURE_NAMES or name in MODEL_INPUT_NAMES
        _refuse_unless(
            name,
            (bool(_NAME.fullmatch(name)), "its name must be lower-case letters, digits and _, and begin with a letter"),
            (not taken, "one of the 49, or of the model inputs, has that name"),
            (1 <= lookback <= LONGEST_LOOKBACK, f"lookback must lie in [1, {LONGEST_LOOKBACK}], was {lookback}"),
            (least <= warm <= LONGEST_LOOKBACK, f"warm_up must be at least lookback - 1 = {least}, was {warm}"),
            (bool(formula.strip()) and bool(source.strip()), "formula and source must say something"),
            (0 < tolerance < 1, f"tolerance must lie in (0, 1), was {tolerance}"),
        )
        summary = (compute.__doc__ or "").strip().split("\n")[0]
        said = tells or summary or formula
        return ExtensionFeature(
            name, compute, lookback, warm, formula, source, said, parameters, family, nan_policy, vectorised, oracle,
            tolerance, unit.strip(),
        )  # fmt: skip

    return declare


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _said(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


@dataclass(frozen=True, slots=True, eq=False)
class ExtensionSet:
    """Features of one's own in the order in which they were declared, and a digest of the files they come from."""

    name: str
    features: tuple[ExtensionFeature, ...]
    source_digest: str

    def __post_init__(self) -> None:
        """Refuse a set without features, or with one name twice."""
        names = self.names
        if not names:
            raise BadInputError(f"{self.name} declares no feature; decorate a function with @feature(...)")
        if len(set(names)) < len(names):
            twice = sorted({one for one in names if names.count(one) > 1})
            raise BadInputError(f"{self.name} declares {', '.join(twice)} more than once")

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(one.name for one in self.features)

    @property
    def memory(self) -> int:
        """Earlier candles from which the next value of every feature follows: the whole state of the set."""
        return max(max(one.lookback - 1, one.warm_up) for one in self.features)

    def fingerprint(self) -> str:
        """Return the digest that identifies the set: names, order, formulas, windows, rules, and the source itself."""
        content = {
            "rules": [_RULES_VERSION, BLOCK, TAIL],
            "source": self.source_digest,
            "features": [
                [one.name, one.formula, one.lookback, one.warm_up, one.vectorised, one.nan_policy]
                for one in self.features
            ],
        }
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _refuse_unless(name: str, *rules: tuple[bool, str]) -> None:
    for holds, expected in rules:
        if not holds:
            raise BadInputError(f"Feature {name or 'without a name'}: {expected}")
