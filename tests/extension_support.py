"""Features of one's own for tests: sound ones, and ones with every fault that a file of them can have."""

from __future__ import annotations

from pathlib import Path

from feature_store.extensions.definition import ExtensionSet
from feature_store.extensions.loading import load_extensions

SOUND = '''
"""Features of somebody's own."""

from dataclasses import dataclass

import numpy as np
import talib

from feature_store.extensions.definition import Window, feature


@dataclass
class Settings:
    length: int = 20


@feature(
    lookback=20, formula="(close - min(low, 20)) / (max(high, 20) - min(low, 20))", source="Donchian",
    parameters="20 candles, as the Bollinger bands.", family="channel",
)
def channel_position(w: Window) -> float:
    """Where the close lies in the range of 20 candles."""
    low, high = w.low.min(), w.high.max()
    return (w.close[-1] - low) / (high - low)


@feature(lookback=Settings().length, formula="weights . close / close", source="mine", warm_up=30)
def weighted(w: Window) -> float:
    """A dot product, which libraries of linear algebra compute by alignment."""
    return float(np.dot(w.close / w.close[-1], np.linspace(0, 1, 20)))


@feature(
    lookback=100, formula="sma(close, 100) / close", source="TA-Lib", vectorised=True,
    oracle=lambda block: talib.SMA(block.close, 100) / block.close,
)
def sma_100(w: Window):
    """A long mean beside the close."""
    return w.close.mean(axis=1) / w.close[:, -1]


@feature(lookback=1, formula="hour of the day", source="the clock of the venue")
def hour(w: Window) -> float:
    """When it is."""
    return float(w.open_time_ms[-1] // 3_600_000 % 24)
'''

HEAD = "import numpy as np\nfrom feature_store.extensions.definition import feature\n"

PLAIN_NUMPY = (
    HEAD + "@feature(lookback=20, formula='(close - mean(close, 20)) / std(close, 20)', source='mine')\n"
    "def z_score_20(w):\n    return (w.close[-1] - w.close.mean()) / max(w.close.std(), 1e-12)\n"
    "@feature(lookback=3, formula='close', source='mine', vectorised=True)\n"
    "def price(w):\n    return w.close[:, -1]\n"
)

FAULTS = {
    "remembers": HEAD + "seen = []\n@feature(lookback=2, formula='f', source='s')\ndef bad(w):\n"
    "    seen.append(w.close[-1])\n    return float(len(seen))\n",
    "random": HEAD + "rng = np.random.default_rng()\n@feature(lookback=2, formula='f', source='s')\n"
    "def bad(w):\n    return rng.random()\n",
    "crosses rows": HEAD + "@feature(lookback=3, formula='f', source='s', vectorised=True)\n"
    "def bad(w):\n    return w.close.mean(axis=1) - w.close.mean()\n",
    "oracle disagrees": HEAD
    + "@feature(lookback=1, formula='f', source='s', oracle=lambda block: 2 * block.close)\n"
    "def bad(w):\n    return w.close[-1]\n",
    "oracle of another shape": HEAD + "@feature(lookback=1, formula='f', source='s', oracle=lambda block: 1.0)\n"
    "def bad(w):\n    return w.close[-1]\n",
    "oracle raises": HEAD + "@feature(lookback=1, formula='f', source='s', oracle=lambda block: 1 / 0)\n"
    "def bad(w):\n    return w.close[-1]\n",
    "never a number": HEAD + "@feature(lookback=1, formula='f', source='s')\ndef bad(w):\n    return float('inf')\n",
    "raises": HEAD + "@feature(lookback=1, formula='f', source='s')\ndef bad(w):\n    return w.nothing\n",
    "gives two numbers": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef bad(w):\n    return w.close\n",
    "writes": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef bad(w):\n    w.close[0] = 1\n    return 1.0\n",
    "a price": HEAD + "@feature(lookback=1, formula='close', source='s')\ndef bad(w):\n    return w.close[-1] / 1e4\n",
    "a turnover": HEAD + "@feature(lookback=1, formula='f', source='s')\ndef bad(w):\n"
    "    return np.log1p(w.volume[-1])\n",
    "cut off": HEAD + "@feature(lookback=2, formula='f', source='s', unit='quote per base')\ndef bad(w):\n"
    "    return w.close[-1] + 100.0\n",
    "constant": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef bad(w):\n"
    "    return w.close[-1] / w.close[-1]\n",
    "gives words": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef bad(w):\n    return 'high'\n",
}  # fmt: skip

UNUSABLE = {
    "no feature": "x = 1\n",
    "does not parse": "def (:\n",
    "raises at import": "raise RuntimeError('no')\n",
    "exits at import": "import sys\nsys.exit(3)\n",
    "name of the 49": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef rsi_14(w):\n    return 1.0\n",
    "name of an input": HEAD + "@feature(lookback=2, formula='f', source='s')\ndef rsi(w):\n    return 1.0\n",
    "no lookback": HEAD + "@feature(lookback=0, formula='f', source='s')\ndef bad(w):\n    return 1.0\n",
    "endless lookback": HEAD + "@feature(lookback=10**9, formula='f', source='s')\ndef bad(w):\n    return 1.0\n",
    "warm-up too short": HEAD + "@feature(lookback=9, warm_up=2, formula='f', source='s')\ndef bad(w):\n    return 1\n",
    "no formula": HEAD + "@feature(lookback=9, formula=' ', source='s')\ndef bad(w):\n    return 1.0\n",
    "upper case": HEAD + "@feature(lookback=9, formula='f', source='s')\ndef Bad(w):\n    return 1.0\n",
    "lookback in words": HEAD + "@feature(lookback='20', formula='f', source='s')\ndef bad(w):\n    return 1.0\n",
    "twice": HEAD + "@feature(lookback=9, formula='f', source='s')\ndef bad(w):\n    return 1.0\nagain = bad\n",
}  # fmt: skip


def written(folder: Path, text: str, name: str = "my_features.py") -> Path:
    """Write a file of features."""
    path = folder / name
    path.write_text(text)
    return path


def loaded(folder: Path, text: str = SOUND) -> ExtensionSet:
    """Write and load one."""
    return load_extensions(written(folder, text))
