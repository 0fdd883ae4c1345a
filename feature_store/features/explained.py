"""What each of the 49 features tells and why it has its parameters; for people, and no part of a fingerprint."""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """A feature in words; `still` is what it says, and models read, where the market does not move at all."""

    tells: str
    parameters: str
    still: str = ""


_NONE = "No parameter."
_RETURNS = (
    "1 candle is the newest news; 3, 6, 12 and 24 are a quarter of an hour to two hours on 5m, around the horizon of "
    "12 candles. Simple and logarithmic lengths alternate, so that no length is told twice."
)
_WILDER = "14 is Wilder's own length (New Concepts in Technical Trading Systems, 1978), and every charting package's."
_MACD = "12, 26 and 9 are Appel's lengths."
_BOLLINGER = "20 candles and 2 population standard deviations, as Bollinger set them."
_STOCHASTIC = "14, 3 and 3: Lane's slow stochastic."
_SMA = "10, 30 and 50 candles; the average of 20 is bollinger_middle, and a second copy would tell nothing."
_EMA = "10, 20 and 50 candles, from under an hour to four hours on 5m."
_VOLUME = "20, the length of the Bollinger middle, so that price and volume are judged over one stretch."
_VOLATILITY = (
    "20 against 60: what volatility is now, and what it has been; 60 is the longest that leaves room in the tail."
)
_PIVOT = "5 candles to each side: a pivot is known 5 candles after it was made, and used from then on, never before."
_ROC = "10 is TA-Lib's default, 48 is four hours on 5m."
_RELATIVE = "12 is the horizon that the models predict, 48 four times that; the volatility is that of 60 candles."

EXPLAINED: dict[str, Explanation] = {
    "open": Explanation("The first price of the candle.", _NONE),
    "high": Explanation("The highest price of the candle.", _NONE),
    "low": Explanation("The lowest price of the candle.", _NONE),
    "close": Explanation("The last price of the candle: what was known when the decision was made.", _NONE),
    "volume": Explanation("How much was traded within the candle.", _NONE),
    "price_change_1": Explanation("The newest move in price units.", "1 candle: the newest news."),
    "simple_return_1": Explanation("The newest move as a share of the price.", _RETURNS),
    "simple_return_3": Explanation("The move of the last three candles.", _RETURNS),
    "simple_return_12": Explanation("The move over one horizon, looking back.", _RETURNS),
    "log_return_1": Explanation(
        "The newest move in logarithms, which add up: what the sequence models read.", _RETURNS
    ),
    "log_return_6": Explanation("The move over half a horizon.", _RETURNS),
    "log_return_24": Explanation("The move over two horizons.", _RETURNS),
    "rsi_14": Explanation(
        "How much of the recent movement was upward: above 70 is called overbought, below 30 oversold.",
        _WILDER,
        "In a market that stands still it keeps its value for some 300 candles, and is then 0, as in one that never "
        "moved: models read -1, the most oversold there is, though nothing was sold.",
    ),
    "macd": Explanation("How far a fast average has run ahead of a slow one.", _MACD),
    "macd_signal": Explanation("The smoothed MACD that it is compared with.", _MACD),
    "macd_histogram": Explanation("MACD against its own average: whether momentum grows or fades.", _MACD),
    "bollinger_upper": Explanation("Two standard deviations above the mean.", _BOLLINGER),
    "bollinger_middle": Explanation("The mean that the bands lie around.", _BOLLINGER),
    "bollinger_lower": Explanation("Two standard deviations below the mean.", _BOLLINGER),
    "stochastic_k": Explanation(
        "Where the close lies within the recent range, smoothed.",
        _STOCHASTIC,
        "In a market that has stood still for 16 candles it is 0: models read -1, as at the low of a range.",
    ),
    "stochastic_d": Explanation(
        "The same, smoothed once more: the line that %K crosses.",
        _STOCHASTIC,
        "In a market that has stood still for 18 candles it is 0: models read -1, as at the low of a range.",
    ),
    "atr_14": Explanation(
        "How far a usual candle reaches, gaps included; stops and targets are multiples of it.", _WILDER
    ),
    "adx_14": Explanation(
        "How directed the movement is, whichever way: above 25 is called a trend.",
        _WILDER,
        "In a market that never moved it is 0: models read -1, no direction at all; in one that has come to stand "
        "still it ends near the last direction there was.",
    ),
    "sma_10": Explanation("The mean price of the last 10 candles.", _SMA),
    "sma_30": Explanation("The mean price of the last 30 candles.", _SMA),
    "sma_50": Explanation("The mean price of the last 50 candles.", _SMA),
    "ema_10": Explanation("A mean that forgets quickly.", _EMA),
    "ema_20": Explanation("A mean that forgets less quickly.", _EMA),
    "ema_50": Explanation("A mean that forgets slowly.", _EMA),
    "wma_20": Explanation("A mean in which the newest candle counts twenty times as much as the oldest.", _VOLUME),
    "volume_sma_20": Explanation("What volume has been usual.", _VOLUME),
    "volume_ratio_20": Explanation("How unusual the newest volume is: 1 is usual.", _VOLUME),
    "obv": Explanation(
        "Volume added on rises and taken off on falls (Granville): whether volume confirms price.", _NONE
    ),
    "vpt": Explanation("As obv, but each volume counts by how far the price moved.", _NONE),
    "historical_volatility_20": Explanation("How much the price shakes now.", _VOLATILITY),
    "historical_volatility_60": Explanation("How much it has shaken of late.", _VOLATILITY),
    "atr_volatility_14": Explanation("The usual candle's range as a share of the price.", _WILDER),
    "bollinger_width_20": Explanation("How wide the bands are: narrow ones tell of a quiet market.", _BOLLINGER),
    "trend_strength": Explanation(
        "How far two averages have parted, in units of a usual candle.",
        "20 against 50 candles, measured in ATR of 14.",
        "Where a market comes to stand still the usual candle fades faster than the distance: the input trend runs to "
        "its bound of 20 either way, and is 0 only after some 300 candles.",
    ),
    "trend_direction": Explanation("Wilder's directional indicators as one number from -1 (down) to 1 (up).", _WILDER),
    "support_level": Explanation("The last low from which the price turned up.", _PIVOT),
    "resistance_level": Explanation("The last high from which the price turned down.", _PIVOT),
    "roc_10": Explanation("The move over ten candles in percent.", _ROC),
    "roc_48": Explanation("The move over four hours of 5m candles in percent.", _ROC),
    "cci_20": Explanation(
        "How far the typical price lies from its mean, in mean deviations.", "20 and 0.015 are Lambert's."
    ),
    "williams_r_14": Explanation(
        "How far the close lies below the recent high: 0 at the high, -100 at the low.",
        _WILDER,
        "In a market that has stood still for 14 candles it is 0: models read 1, as at the high of a range.",
    ),
    "mfi_14": Explanation(
        "As RSI, with volume: how much of the money that moved did so on rises.",
        "14, as for RSI (Quong and Soudack).",
        "In a market that has stood still for 15 candles, or traded nothing while it moved, it is 0: models read -1, "
        "as if all money had come on falls.",
    ),
    "relative_momentum_12": Explanation(
        "The last horizon's move against what chance alone would do: 1 is one standard deviation.", _RELATIVE
    ),
    "relative_momentum_48": Explanation("The same over four hours of 5m candles.", _RELATIVE),
}
