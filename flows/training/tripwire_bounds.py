"""Where the tripwires of a training run lie, each a number with its reason; they fail a run, gates refuse a result."""

from __future__ import annotations

import msgspec


class TripwireBounds(msgspec.Struct, frozen=True, kw_only=True):
    """
    Bounds beyond which a training run fails, since something is wrong with it rather than with the market.

    Scores are judged by the lower ends of their 95 % intervals: what chance alone may reach trips nothing. Runs that
    only try the machinery on little data state bounds of their own.
    """

    # Trees fitted to labels that were moved elsewhere in time must predict nothing. The gate refuses from four standard
    # errors on; six do not happen by chance, and below a correlation of 0.05 nothing could be traded.
    shuffled_label_z: float = 6.0
    shuffled_label_ic: float = 0.05
    # Correlation of one input with the log return of any single one of the next candles. An input that was shifted
    # one candle into the future has that of its own candle, up to 1; of one candle of five minutes nobody foresees a
    # tenth of the variance by one number. The liveliest market that the sandbox makes (--edge 0.6) shows 0.20.
    next_candle_ic: float = 0.3
    # The same for the log return over the horizon: a quarter of its variance. The sandbox at --edge 0.6 shows 0.44.
    input_ic: float = 0.5
    # What members, ensemble and baselines say out of sample: the bounds of the gates (`plausible_…` in
    # mlflow/gates.yaml), which refuse by the figure itself; here its lower end has to lie beyond them.
    score_ic: float = 0.5
    score_r2: float = 0.25
    score_hit_rate: float = 0.7
    # Outcomes that neither overlap nor move together, in each window that something is chosen by. With thirty, a
    # correlation is known to a third of its range: scales, weights and thresholds chosen by fewer are noise.
    independent_outcomes: float = 30.0
    # Share of a window's candles that are there with their whole past, and of what was asked for: the days that the
    # series span, and the series that were good enough to learn from. Each gate and loader forgives less of its own;
    # this is where the question was not answered any more.
    window_coverage: float = 0.8
    asked_days: float = 0.9
    asked_series: float = 0.5
    # Whether what is fitted is fitted again, small, beside a twin whose later candles are nonsense: it must not change.
    audits: bool = True
