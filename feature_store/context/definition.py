"""The features made of other sources: a set of their own, with its own version and fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache

from feature_store.context.lexicon import LONGEST_TEXT, lexicon_digest
from feature_store.context.mentions import NAMES, WORDS_TOO

VERSION = 1
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STALE_MS = DAY_MS
"""A figure that arrived longer ago says nothing of now."""


@dataclass(frozen=True, slots=True)
class ContextFeature:
    """One feature: `unknown` says when it is not a number."""

    name: str
    family: str
    formula: str
    unknown: str


_NO_TEXT = "no text of the window had arrived"
_NOT_ASKED = "no source of texts had answered within the window"
_STALE = "a figure it needs had not arrived within 24 h"

CONTEXT_FEATURES = (
    ContextFeature("sentiment_1h", "sentiment", "mean score of texts that name the asset, of the last hour", _NO_TEXT),
    ContextFeature("sentiment_24h", "sentiment", "mean score of texts that name the asset, of the last day", _NO_TEXT),
    ContextFeature("sentiment_change", "sentiment", "sentiment_1h - sentiment_24h", _NO_TEXT),
    ContextFeature("market_sentiment_24h", "sentiment", "mean score of all texts of the last day", _NO_TEXT),
    ContextFeature("mentions_1h", "attention", "log(1 + texts that name the asset, of the last hour)", _NOT_ASKED),
    ContextFeature("mentions_24h", "attention", "log(1 + texts that name the asset, of the last day)", _NOT_ASKED),
    ContextFeature("attention", "attention", "log((1 + texts of the hour) / (1 + texts of the day / 24))", _NOT_ASKED),
    ContextFeature("market_cap_rank", "market", "log(rank by capitalisation)", _STALE),
    ContextFeature("turnover", "market", "log(volume of 24 h / capitalisation)", _STALE),
    ContextFeature("market_share", "market", "log(capitalisation / capitalisation of the whole market)", _STALE),
    ContextFeature("bitcoin_dominance", "market", "share of Bitcoin in the whole market, 0 to 1", _STALE),
    ContextFeature(
        "market_change_24h", "market", "log(capitalisation of the whole market / the same a day before)", _STALE
    ),
)
CONTEXT_NAMES = tuple(feature.name for feature in CONTEXT_FEATURES)


@cache
def context_fingerprint() -> str:
    """Return a digest over version, names, formulas, and what turns a text into a number and an asset."""
    content = {
        "version": VERSION,
        "features": [asdict(feature) for feature in CONTEXT_FEATURES],
        "lexicon": lexicon_digest(),
        "longest_text": LONGEST_TEXT,
        "names": sorted(NAMES.items()),
        "words_too": sorted(WORDS_TOO),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
