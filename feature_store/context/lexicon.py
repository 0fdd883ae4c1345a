"""How good or bad a text sounds, by a lexicon that lies on disk: nothing is asked of anybody."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

LONGEST_TEXT = 2_000
"""Signs of a text that are read; the rest says the same, or is meant to exhaust us."""

WORDS = {
    "adoption": 1.5, "airdrop": 0.8, "ath": 2.0, "bagholder": -1.8, "bearish": -2.5, "breakout": 1.6, "bullish": 2.5,
    "capitulation": -2.2, "crash": -2.8, "delist": -2.4, "delisted": -2.4, "delisting": -2.4, "depeg": -2.8,
    "depegged": -2.8, "dump": -2.0, "dumping": -2.0, "exploit": -2.6, "exploited": -2.6, "fud": -1.6, "hacked": -3.0,
    "hodl": 1.2, "inflows": 1.4, "insolvent": -3.0, "insolvency": -3.0, "liquidated": -2.2, "liquidation": -2.0,
    "liquidations": -2.0, "listing": 1.2, "lows": -1.2, "moon": 1.8, "mooning": 2.2, "outage": -1.8, "outflows": -1.4,
    "plunge": -2.4, "plunges": -2.4, "pump": 1.0, "rally": 2.0, "rallies": 2.0, "rebound": 1.6, "rekt": -2.4,
    "rugpull": -3.2, "selloff": -2.0, "slump": -2.0, "slumps": -2.0, "soar": 2.2, "soars": 2.2, "surge": 1.8,
    "surges": 1.8, "tumble": -2.0, "tumbles": -2.0, "upgrade": 1.2,
}  # fmt: skip
"""What the general lexicon lacks of the words of markets, on its scale from -4 to 4."""


def score(text: str) -> float:
    """Return how a text sounds, from -1 to 1; 0 where no word of it is known. Four decimals, as the lexicon gives."""
    return float(_analyzer().polarity_scores(text[:LONGEST_TEXT])["compound"])


@cache
def lexicon_digest() -> str:
    """Return a digest over every word and weight: a score means nothing without it."""
    content = json.dumps([_analyzer().lexicon, _analyzer().emojis], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@cache
def _analyzer() -> Any:
    analyzer = SentimentIntensityAnalyzer()
    analyzer.lexicon.update(WORDS)
    return analyzer
