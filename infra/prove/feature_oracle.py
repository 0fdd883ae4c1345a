"""The 49 features against others' arithmetic: TA-Lib, the same 49 in SQL, and 80 bits where 53 are too few."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from feature_store.features.definition import FEATURE_NAMES, INDEX, TAIL
from feature_store.features.engine import FeatureEngine
from feature_store.reference import features_in_sql
from infra.prove.comparing import relative_error
from infra.prove.markets import synthetic_series
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import recorded_series, what_was_used
from infra.prove.reference_exact import EXACT
from infra.prove.reference_talib import TALIB, Columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from feature_store.candle import CandleBlock, Series

    Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-9
_SHORTEST = 200  # Candles: shorter than this, the spread of a feature says little.
_AT_ONCE = 150_000  # Candles that SQL is asked for in one query.
_STILL = 0.05  # Share of candles without any movement above which TA-Lib's 0/0 is no answer; SQL answers alone.


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of the candles is compared."""

    synthetic: int
    synthetic_series: int
    recorded: int
    per_file: int | None


EXTENTS = {Size.FULL: Extent(10_000, 24, 20_000, None), Size.CI: Extent(1_500, 12, 2_000, 2)}


@dataclass(slots=True)
class Verdicts:
    """The largest error of each feature, and who was asked where."""

    worst: dict[str, tuple[float, str]] = field(default_factory=lambda: dict.fromkeys(FEATURE_NAMES, (-1.0, "never")))
    by_others: dict[str, float] = field(default_factory=dict)
    values: int = 0
    series: int = 0
    still: int = 0
    """Series of which TA-Lib was not asked."""

    def judge(self, feature: str, found: Floats, expected: Floats, said_by: str) -> None:
        """Keep the error of a column if it is the feature's largest; another warm-up is an infinite one."""
        alike = np.array_equal(np.isnan(found), np.isnan(expected))
        error = relative_error(found, expected) if alike else float("inf")
        self.values += len(found)
        if error > self.worst[feature][0]:
            self.worst[feature] = (error, said_by)

    @property
    def ranked(self) -> list[tuple[str, float, str]]:
        """Features with error and place, the worst first."""
        rows = [(name, *worst) for name, worst in self.worst.items()]
        return sorted(rows, key=lambda row: -row[1])


def prove(size: Size) -> Proof:
    """Compare every feature with every reference, after warm-up, on synthetic and recorded candles."""
    extent = EXTENTS[size]
    verdicts, real = Verdicts(), 0
    waiting: dict[Series, CandleBlock] = {}
    synthetic = synthetic_series(extent.synthetic, extent.synthetic_series)
    for series, block in chain(synthetic, recorded_series(extent.recorded, extent.per_file)):
        part = longest_unbroken(block, series)
        if len(part) < _SHORTEST:
            continue
        real += series.venue != "synthetic"
        waiting[series] = part
        if sum(map(len, waiting.values())) > _AT_ONCE:
            compare(waiting, verdicts)
            waiting = {}
    compare(waiting, verdicts)
    ranked = verdicts.ranked
    missed = [name for name, error, _ in ranked if not 0 <= error <= TOLERANCE]
    name, error, place = ranked[0]
    return Proof(
        name="feature-oracle",
        figure=f"worst of 49: {name} {error:.1e} ({place}), {len(missed)} over the bar, {verdicts.values:,} values",
        bar="abs(x - ref) <= 1e-9 * max(abs(ref), 1e-3 * std), the same warm-up",
        holds=not missed,
        details=(
            f"on {what_was_used(real)}",
            *who_was_asked(verdicts),
            *[f"{one:<26}{worst:.1e}  {where}" for one, worst, where in ranked[:6]],
            *[f"TA-Lib itself is {worst:.1e} from 80 bits for {one}" for one, worst in verdicts.by_others.items()],
        ),
    )


def who_was_asked(verdicts: Verdicts) -> tuple[str, str]:
    """Say of how many series TA-Lib was asked, and which features nobody but our own SQL judges."""
    alone = [name for name in FEATURE_NAMES if name not in TALIB and name not in EXACT]
    asked = (
        f"TA-Lib was asked of {verdicts.series - verdicts.still} of {verdicts.series} series; {verdicts.still} stand "
        f"still in more than {_STILL:.0%} of their candles, where it has 0/0: of those SQL or 80 bits judge alone"
    )
    return (
        asked,
        f"judged by our own SQL alone, on every series: {len(alone)} of {len(FEATURE_NAMES)} ({', '.join(alone)})",
    )


def compare(blocks: Mapping[Series, CandleBlock], verdicts: Verdicts) -> None:
    """Judge all features of some series by every reference that knows them."""
    if not blocks:
        return
    in_sql = features_in_sql({series.key: block for series, block in blocks.items()})
    for series, block in blocks.items():
        features = FeatureEngine(series.timeframe).advance(block)
        for name in FEATURE_NAMES:
            if name not in EXACT:
                _judge(verdicts, name, features, in_sql[series.key][:, INDEX[name]], f"SQL, {series.symbol}")
        exact = {name: reference(block) for name, reference in EXACT.items()}
        for name, expected in exact.items():
            _judge(verdicts, name, features, expected, f"80 bits, {series.symbol}")
        verdicts.series += 1
        if _stands_still(block):
            verdicts.still += 1
        else:
            _ask_talib(block, features, exact, verdicts, series)


def _ask_talib(
    block: CandleBlock, features: Floats, exact: Mapping[str, Floats], verdicts: Verdicts, series: Series
) -> None:
    columns = Columns(block)
    for name, reference in TALIB.items():
        expected = reference(columns)
        if name in exact:
            error = relative_error(expected, exact[name])
            verdicts.by_others[name] = max(error, verdicts.by_others.get(name, 0.0))
        else:
            _judge(verdicts, name, features, expected, f"TA-Lib, {series.symbol}")


def _judge(verdicts: Verdicts, name: str, features: Floats, expected: Floats, said_by: str) -> None:
    verdicts.judge(name, features[:, INDEX[name]], expected, said_by)


def _stands_still(block: CandleBlock) -> bool:
    still = (block.values[:, 1] == block.values[:, 2]) & (np.diff(block.close, prepend=block.close[0]) == 0)
    return bool(still.mean() > _STILL)


def longest_unbroken(block: CandleBlock, series: Series) -> CandleBlock:
    """Return the longest stretch without a gap that begins a series afresh: references know no such gaps."""
    missing = np.diff(block.open_time_ms) // series.timeframe.milliseconds - 1
    edges = [0, *(np.flatnonzero(missing > TAIL) + 1).tolist(), len(block)]
    begin, end = max(pairwise(edges), key=lambda pair: pair[1] - pair[0])
    return block[begin:end]
