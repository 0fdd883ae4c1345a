"""The 49 features: their names, order, formulas, warm-up and policy for undefined values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

KERNEL_VERSION = 3
"""Raised whenever the kernel may give other bits for the same candles."""

TAIL = 64
"""Earlier candles that the kernel keeps: more than any window looks back."""

WINDOW = 64
"""Rows of inputs that the sequence models read (SPEC FE-038)."""


class Family(StrEnum):
    """What a feature is about, in the words of the specification."""

    PRICE = "price"
    TECHNICAL = "technical"
    MOVING_AVERAGE = "moving average"
    VOLUME = "volume"
    VOLATILITY = "volatility"
    TREND = "trend"
    MOMENTUM = "momentum"


@dataclass(frozen=True, slots=True)
class Feature:
    """
    One feature.

    `lookback` is how many candles, its own included, a value depends on; None means all of them since the
    series began. `warm_up` is how many candles at the start of a series have no value.
    """

    name: str
    family: Family
    formula: str
    lookback: int | None
    warm_up: int
    nan_policy: str
    source: str


_WARM = "NaN during warm-up, finite after it"
_ZERO = "NaN during warm-up; 0 where the denominator is 0, or price units below 1e-12 of close; finite after it"


def _feature(
    name: str,
    family: Family,
    formula: str,
    *,
    lookback: int | None,
    warm_up: int,
    source: str,
    nan_policy: str = _WARM,
) -> Feature:
    return Feature(name, family, formula, lookback, warm_up, nan_policy, source)


_P, _T, _A = Family.PRICE, Family.TECHNICAL, Family.MOVING_AVERAGE
_V, _S, _D, _M = Family.VOLUME, Family.VOLATILITY, Family.TREND, Family.MOMENTUM

# `x[k]` is the value k candles ago; sma, ema, std, sum, min, max run over that many candles, the newest included.
# ema starts from an sma of its own length and Wilder's averages from a mean, as in TA-Lib.
FEATURES: tuple[Feature, ...] = (
    _feature("open", _P, "open", lookback=1, warm_up=0, source="FE-005"),
    _feature("high", _P, "high", lookback=1, warm_up=0, source="FE-005"),
    _feature("low", _P, "low", lookback=1, warm_up=0, source="FE-005"),
    _feature("close", _P, "close", lookback=1, warm_up=0, source="FE-005"),
    _feature("volume", _P, "volume, base units", lookback=1, warm_up=0, source="FE-005"),
    # 1 candle is the newest news; 3, 6, 12 and 24 are a quarter hour to two hours on 5m, around the 12-candle horizon.
    _feature("price_change_1", _P, "close - close[1]", lookback=2, warm_up=1, source="FE-006"),
    _feature("simple_return_1", _P, "close / close[1] - 1", lookback=2, warm_up=1, source="FE-006"),
    _feature("simple_return_3", _P, "close / close[3] - 1", lookback=4, warm_up=3, source="FE-006"),
    _feature("simple_return_12", _P, "close / close[12] - 1", lookback=13, warm_up=12, source="FE-006"),
    _feature("log_return_1", _P, "ln(close / close[1])", lookback=2, warm_up=1, source="FE-007"),
    _feature("log_return_6", _P, "ln(close / close[6])", lookback=7, warm_up=6, source="FE-007"),
    _feature("log_return_24", _P, "ln(close / close[24])", lookback=25, warm_up=24, source="FE-007"),
    # 14 is Wilder's own length for RSI, ATR and ADX, and the default of every charting package.
    _feature(
        "rsi_14", _T, "Wilder RSI of close, 14", lookback=None, warm_up=14, nan_policy=_ZERO, source="FE-008, TA-Lib"
    ),
    # 12/26/9: Appel's parameters.
    _feature("macd", _T, "ema(close, 12) - ema(close, 26)", lookback=None, warm_up=33, source="FE-009, TA-Lib"),
    _feature("macd_signal", _T, "ema(macd, 9)", lookback=None, warm_up=33, source="FE-009, TA-Lib"),
    _feature("macd_histogram", _T, "macd - macd_signal", lookback=None, warm_up=33, source="FE-009, TA-Lib"),
    # 20 candles and 2 population standard deviations: Bollinger's parameters.
    _feature(
        "bollinger_upper",
        _T,
        "sma(close, 20) + 2 * std(close, 20, population)",
        lookback=20,
        warm_up=19,
        source="FE-010, TA-Lib",
    ),
    _feature("bollinger_middle", _T, "sma(close, 20)", lookback=20, warm_up=19, source="FE-010, TA-Lib"),
    _feature(
        "bollinger_lower",
        _T,
        "sma(close, 20) - 2 * std(close, 20, population)",
        lookback=20,
        warm_up=19,
        source="FE-010, TA-Lib",
    ),
    # 14/3/3: the slow stochastic of Lane.
    _feature(
        "stochastic_k",
        _T,
        "sma(100 * (close - min(low, 14)) / (max(high, 14) - min(low, 14)), 3)",
        lookback=16,
        warm_up=17,
        nan_policy=_ZERO,
        source="FE-011, TA-Lib",
    ),
    _feature(
        "stochastic_d",
        _T,
        "sma(stochastic_k, 3)",
        lookback=18,
        warm_up=17,
        nan_policy=_ZERO,
        source="FE-011, TA-Lib",
    ),
    _feature("atr_14", _T, "Wilder average of the true range, 14", lookback=None, warm_up=14, source="FE-012, TA-Lib"),
    _feature("adx_14", _T, "Wilder ADX, 14", lookback=None, warm_up=27, nan_policy=_ZERO, source="FE-013, TA-Lib"),
    # 10, 30, 50; the sma of 20 is bollinger_middle, and a second copy would tell nothing.
    _feature("sma_10", _A, "sma(close, 10)", lookback=10, warm_up=9, source="FE-014, TA-Lib"),
    _feature("sma_30", _A, "sma(close, 30)", lookback=30, warm_up=29, source="FE-014, TA-Lib"),
    _feature("sma_50", _A, "sma(close, 50)", lookback=50, warm_up=49, source="FE-014, TA-Lib"),
    _feature("ema_10", _A, "ema(close, 10)", lookback=None, warm_up=9, source="FE-015, TA-Lib"),
    _feature("ema_20", _A, "ema(close, 20)", lookback=None, warm_up=19, source="FE-015, TA-Lib"),
    _feature("ema_50", _A, "ema(close, 50)", lookback=None, warm_up=49, source="FE-015, TA-Lib"),
    _feature("wma_20", _A, "linearly weighted mean of close, 20", lookback=20, warm_up=19, source="FE-016, TA-Lib"),
    # 20: the length of the Bollinger middle, so price and volume are judged over one stretch.
    _feature("volume_sma_20", _V, "sma(volume, 20)", lookback=20, warm_up=19, source="FE-017, TA-Lib"),
    _feature(
        "volume_ratio_20",
        _V,
        "volume / sma(volume, 20)",
        lookback=20,
        warm_up=19,
        nan_policy=_ZERO,
        source="FE-018",
    ),
    _feature(
        "obv",
        _V,
        "obv[1] + volume * sign(close - close[1]), starting at volume",
        lookback=None,
        warm_up=0,
        source="FE-019, TA-Lib",
    ),
    _feature(
        "vpt",
        _V,
        "vpt[1] + volume * (close / close[1] - 1), starting at 0",
        lookback=None,
        warm_up=0,
        source="FE-020",
    ),
    # 20 against 60: what volatility is now, and what it has been; 60 is the longest that leaves room in the tail.
    _feature(
        "historical_volatility_20",
        _S,
        "std(log_return_1, 20, sample)",
        lookback=21,
        warm_up=20,
        source="FE-021",
    ),
    _feature(
        "historical_volatility_60",
        _S,
        "std(log_return_1, 60, sample)",
        lookback=61,
        warm_up=60,
        source="FE-021",
    ),
    _feature("atr_volatility_14", _S, "atr_14 / close", lookback=None, warm_up=14, source="FE-022"),
    _feature(
        "bollinger_width_20",
        _S,
        "(bollinger_upper - bollinger_lower) / bollinger_middle",
        lookback=20,
        warm_up=19,
        source="FE-023",
    ),
    # How far the averages have parted, in units of a usual candle.
    _feature(
        "trend_strength",
        _D,
        "|ema_20 - ema_50| / atr_14",
        lookback=None,
        warm_up=49,
        nan_policy=_ZERO,
        source="FE-024",
    ),
    # Wilder's directional indicators as one number from -1 (down) to 1 (up).
    _feature(
        "trend_direction",
        _D,
        "(plus_di_14 - minus_di_14) / (plus_di_14 + minus_di_14)",
        lookback=None,
        warm_up=14,
        nan_policy=_ZERO,
        source="FE-025, TA-Lib",
    ),
    # A pivot is the extreme of 11 candles around it, so it is known 5 candles later and never before.
    _feature(
        "support_level",
        _D,
        "low of the last candle that was the lowest of the 5 before and the 5 after it; min(low, 11) before any",
        lookback=None,
        warm_up=10,
        source="FE-026",
    ),
    _feature(
        "resistance_level",
        _D,
        "high of the last candle that was the highest of the 5 before and the 5 after it; max(high, 11) before any",
        lookback=None,
        warm_up=10,
        source="FE-026",
    ),
    # 10 is TA-Lib's default; 48 is four hours on 5m.
    _feature("roc_10", _M, "100 * (close / close[10] - 1)", lookback=11, warm_up=10, source="FE-027, TA-Lib"),
    _feature("roc_48", _M, "100 * (close / close[48] - 1)", lookback=49, warm_up=48, source="FE-027, TA-Lib"),
    # Lambert's 20 for CCI; 14 for the two others, as for RSI.
    _feature(
        "cci_20",
        _M,
        "(tp - sma(tp, 20)) / (0.015 * mean |tp - sma(tp, 20)|), tp = (high + low + close) / 3",
        lookback=20,
        warm_up=19,
        nan_policy=_ZERO,
        source="FE-028, TA-Lib",
    ),
    _feature(
        "williams_r_14",
        _M,
        "-100 * (max(high, 14) - close) / (max(high, 14) - min(low, 14))",
        lookback=14,
        warm_up=13,
        nan_policy=_ZERO,
        source="FE-028, TA-Lib",
    ),
    _feature(
        "mfi_14",
        _M,
        "100 * sum(rising tp * volume, 14) / sum(moving tp * volume, 14); |tp - tp[1]| <= 1e-13 * tp does not move",
        lookback=15,
        warm_up=14,
        nan_policy=_ZERO,
        source="FE-028, TA-Lib",
    ),
    # Momentum relative to what chance alone would do over the same stretch: 1 is one standard deviation.
    _feature(
        "relative_momentum_12",
        _M,
        "ln(close / close[12]) / (historical_volatility_60 * sqrt(12))",
        lookback=61,
        warm_up=60,
        nan_policy=_ZERO,
        source="FE-029",
    ),
    _feature(
        "relative_momentum_48",
        _M,
        "ln(close / close[48]) / (historical_volatility_60 * sqrt(48))",
        lookback=61,
        warm_up=60,
        nan_policy=_ZERO,
        source="FE-029",
    ),
)

FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
WARM_UP: tuple[int, ...] = tuple(feature.warm_up for feature in FEATURES)
INDEX: dict[str, int] = {name: position for position, name in enumerate(FEATURE_NAMES)}


@dataclass(frozen=True, slots=True)
class ModelInput:
    """
    One number that a model reads, computed from one row of features.

    It has no unit: multiplying all prices or all volumes of a series by a constant changes nothing, so that one
    model serves every symbol. NaN where a feature it reads is NaN.
    """

    name: str
    formula: str


# obv, vpt and volume_sma_20 have no input of their own: the level of the first two depends on where the series
# began, and the third is the denominator of volume_ratio_20.
MODEL_INPUTS: tuple[ModelInput, ...] = (
    ModelInput("candle_body", "ln(close / open)"),
    ModelInput("upper_wick", "ln(high / max(open, close))"),
    ModelInput("lower_wick", "ln(min(open, close) / low)"),
    ModelInput("price_change_in_atr", "price_change_1 / atr_14"),
    ModelInput("log_return_1", "log_return_1, which is also ln(1 + simple_return_1)"),
    ModelInput("log_return_3", "ln(1 + simple_return_3)"),
    ModelInput("log_return_6", "log_return_6"),
    ModelInput("log_return_10", "ln(1 + roc_10 / 100)"),
    ModelInput("log_return_12", "ln(1 + simple_return_12)"),
    ModelInput("log_return_24", "log_return_24"),
    ModelInput("log_return_48", "ln(1 + roc_48 / 100)"),
    ModelInput("rsi", "rsi_14 / 50 - 1"),
    ModelInput("macd_in_atr", "macd / atr_14"),
    ModelInput("macd_signal_in_atr", "macd_signal / atr_14"),
    ModelInput("macd_histogram_in_atr", "macd_histogram / atr_14"),
    ModelInput("bollinger_position", "2 * (close - bollinger_middle) / (bollinger_upper - bollinger_lower)"),
    ModelInput("bollinger_width", "bollinger_width_20"),
    ModelInput("stochastic_k", "stochastic_k / 50 - 1"),
    ModelInput("stochastic_d", "stochastic_d / 50 - 1"),
    ModelInput("adx", "adx_14 / 50 - 1"),
    ModelInput("distance_sma_10", "ln(close / sma_10)"),
    ModelInput("distance_sma_30", "ln(close / sma_30)"),
    ModelInput("distance_sma_50", "ln(close / sma_50)"),
    ModelInput("distance_ema_10", "ln(close / ema_10)"),
    ModelInput("distance_ema_20", "ln(close / ema_20)"),
    ModelInput("distance_ema_50", "ln(close / ema_50)"),
    ModelInput("distance_wma_20", "ln(close / wma_20)"),
    ModelInput("volume_ratio", "ln(1 + volume_ratio_20)"),
    ModelInput("volatility_20", "historical_volatility_20"),
    ModelInput("volatility_60", "historical_volatility_60"),
    ModelInput("volatility_change", "(hv_20 - hv_60) / (hv_20 + hv_60), hv for historical_volatility"),
    ModelInput("atr_volatility", "atr_volatility_14"),
    ModelInput("trend", "trend_strength * sign(ema_20 - ema_50)"),
    ModelInput("trend_direction", "trend_direction"),
    ModelInput("distance_support", "ln(close / support_level)"),
    ModelInput("distance_resistance", "ln(resistance_level / close)"),
    ModelInput("cci", "cci_20 / 200"),
    ModelInput("williams_r", "williams_r_14 / 50 + 1"),
    ModelInput("mfi", "mfi_14 / 50 - 1"),
    ModelInput("relative_momentum_12", "relative_momentum_12"),
    ModelInput("relative_momentum_48", "relative_momentum_48"),
)

MODEL_INPUT_NAMES: tuple[str, ...] = tuple(one.name for one in MODEL_INPUTS)

INPUT_BOUND = 20.0
"""Inputs are cut off here: a bad tick must not swamp a net. A ratio whose denominator is 0 is 0."""


def fingerprint() -> str:
    """
    Return the digest that identifies this feature set.

    It covers names, order, formulas and parameters of features and model inputs, and the version of the kernel, and
    is stored with every feature file, state and model bundle.
    """
    content = {
        "kernel_version": KERNEL_VERSION,
        "tail": TAIL,
        "window": WINDOW,
        "input_bound": INPUT_BOUND,
        "features": [asdict(feature) for feature in FEATURES],
        "model_inputs": [asdict(one) for one in MODEL_INPUTS],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
