"""Rules that hold in one kind of market: figures by the name of a regime, as a policy has them in text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType

from inference.domain.errors import PolicyError

UNKNOWN = "unknown"
REGIME_NAMES = (
    "trend",
    "range",
    "high_volatility",
    "crash",
    UNKNOWN,
    # What bundles without a model of regimes tell.
    "trending_calm",
    "trending_normal",
    "trending_turbulent",
    "ranging_calm",
    "ranging_normal",
    "ranging_turbulent",
)
"""Every regime that a signal may state."""

_PAIR = re.compile(r"([a-z_]{1,40})\s*=\s*([0-9]{1,3}(?:\.[0-9]{1,12})?)")


@lru_cache(maxsize=64)
def figures_of(texts: tuple[str, ...]) -> Mapping[str, Decimal]:
    """
    Return the figures that texts such as `crash=0.25` say, by regime; the same texts are read once.

    Raises:
        PolicyError: A text is no such pair, names no regime, or one twice.
    """
    found: dict[str, Decimal] = {}
    for text in texts:
        pair = _PAIR.fullmatch(text.strip())
        if pair is None:
            raise PolicyError(f"Rule of a regime {text!r} is not understood; write 'crash=0.25'")
        name = pair[1]
        if name not in REGIME_NAMES:
            raise PolicyError(f"There is no regime {name!r}; there are {', '.join(REGIME_NAMES)}")
        if name in found:
            raise PolicyError(f"Regime {name} has two figures; say one")
        found[name] = Decimal(pair[2])
    return MappingProxyType(found)
