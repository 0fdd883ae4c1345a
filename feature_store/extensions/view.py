"""What models read: the inputs made of the 49, and beside them, where chosen, features of one's own and of others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.extensions.engine import ExtensionEngine
from feature_store.extensions.expansion import Expansion, Known, expand
from feature_store.extensions.loading import load_extensions
from feature_store.features.definition import INPUT_BOUND, MODEL_INPUT_NAMES, WINDOW, fingerprint
from feature_store.features.engine import READY_AFTER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from feature_store.extensions.definition import ExtensionSet

    Floats = npt.NDArray[np.float64]
    Inputs = npt.NDArray[np.float32]

DEFAULT_INCLUDED = ("log_return_1", "log_return_12", "rsi", "volatility_20", "volume_ratio")
"""What is taken of other symbols and timeframes unless names are chosen: move, state and liveliness, without a unit."""


@dataclass(frozen=True, slots=True, eq=False)
class FeatureView:
    """The inputs of a deployment, in order, with a fingerprint: nothing that was trained on others can trade on it."""

    extensions: ExtensionSet | None = None
    expansion: Expansion | None = None

    def __post_init__(self) -> None:
        """Refuse raw features of others: a price of another symbol has a unit, and inputs have none."""
        names = () if self.expansion is None else self.expansion.names
        raw = sorted(set(names) - set(MODEL_INPUT_NAMES))
        if raw:
            raise BadInputError(f"Models read inputs of others, and {', '.join(raw)} is none; see the catalogue")

    @property
    def extra_names(self) -> tuple[str, ...]:
        """Names of the inputs beside those made of the 49."""
        own = () if self.extensions is None else self.extensions.names
        return (*own, *(() if self.expansion is None else self.expansion.columns))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of all inputs, in order."""
        return (*MODEL_INPUT_NAMES, *self.extra_names)

    def fingerprint(self) -> str:
        """Return the digest of everything that makes the inputs; that of the 49 alone where nothing is added."""
        if not self.extra_names:
            return fingerprint()
        added = [None if one is None else one.fingerprint() for one in (self.extensions, self.expansion)]
        return hashlib.sha256(json.dumps([fingerprint(), *added]).encode()).hexdigest()

    def ready_after(self, timeframe: Timeframe) -> int:
        """Return after how many candles a series has a full window of all inputs."""
        own = 0 if self.extensions is None else self.extensions.memory + WINDOW
        longest = max((one.milliseconds for one in (self.expansion.timeframes if self.expansion else ())), default=0)
        # Warm-up and window both, counted in the longest candles, and one that began before the first.
        coarse = (READY_AFTER + 1) * longest // timeframe.milliseconds
        return max(READY_AFTER, own, coarse)

    def extra_inputs(self, symbol: str, timeframe: Timeframe, known: Mapping[str, Known]) -> Inputs:
        """
        Return the added inputs at each candle of a symbol [n, added]: what a worker had when the candle was known.

        Args:
            symbol: Whose.
            timeframe: Of all candles.
            known: Candles by symbol and when each was known, its own among them; a symbol to include that is absent
                has no values.
        """
        own = known[symbol]
        parts = [np.empty((len(own.block), 0))]
        if self.extensions is not None:
            parts.append(ExtensionEngine(self.extensions, timeframe).advance(own.block))
        if self.expansion is not None:
            others = {name: known[name] for name in self.expansion.symbols if name in known}
            parts.append(expand(self.expansion, timeframe, own.block, own.known_ms, own=own, others=others))
        return as_inputs(np.concatenate(parts, axis=1))


def chosen_view(*, extensions: Path | None, symbols: str, timeframes: str, inputs: str) -> FeatureView:
    """
    Return the view that settings choose; lists are separated by commas, and empty where nothing is added.

    Raises:
        BadInputError: A file cannot be run, or a name is unknown.
    """
    wanted = _listed(symbols), tuple(Timeframe.parse(one) for one in _listed(timeframes))
    names = _listed(inputs) or DEFAULT_INCLUDED
    expansion = Expansion(names=names, symbols=wanted[0], timeframes=wanted[1]) if any(wanted) else None
    return FeatureView(None if extensions is None else load_extensions(extensions), expansion)


def as_inputs(values: Floats) -> Inputs:
    """Return values as models read them: cut off where all inputs are."""
    return np.clip(values, -INPUT_BOUND, INPUT_BOUND).astype(np.float32)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
