"""The stored universes of the configured market: made from the lake, read at any moment, followed by training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_store.candle import Series, Timeframe
from feature_store.clock import utc_now_ms
from feature_store.errors import QuantumError
from feature_store.joins import listings_of
from feature_store.lake import CandleLake
from feature_store.universe.archive import Market, StoredUniverse, UniverseArchive
from feature_store.universe.building import build_weeks, members_between, seen_ms, was_included
from feature_store.universe.candle_filters import CandleFilters
from feature_store.universe.facts import Listing
from feature_store.universe.policy import Rules, read_rules
from feature_store.universe.selection import DAY_MS, Mode, UniversePolicy, considered
from flows.known_markets import known_markets
from flows.settings import FlowSettings
from flows.wording import moment
from inference.domain.policy import Policy, UniverseMode
from inference.policy.store import PolicyStore


class NoUniverseError(QuantumError):
    """No universe is stored that was known at the moment asked for."""


@dataclass(frozen=True, slots=True)
class Members:
    """
    Who was in the universe at each moment, as it was known then.

    `filters` is what candidates must pass at each candle beside, None where the weekly choice is all there is.
    """

    market: Market
    universes: Sequence[StoredUniverse]
    filters: CandleFilters | None = None
    listings: Sequence[Listing] = field(default=())

    def series(self, stored: Sequence[Series], start_ms: int, end_ms: int) -> list[Series]:
        """
        Return the stored series that were in at any moment of `[start_ms, end_ms)`.

        Raises:
            NoUniverseError: No universe was known in that stretch, or none had a member.
        """
        members = set(members_between(self.universes, start_ms, end_ms))
        if not members:
            raise NoUniverseError(
                f"No symbol of {self.market.venue} {self.market.timeframe} was in a stored universe between "
                f"{moment(start_ms)} and {moment(end_ms)}; run 'qtctl universe build', then 'qtctl universe show' "
                "says why"
            )
        return [one for one in stored if one.symbol in members]

    def included(self, series: Series, at_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Mark the moments at which the newest universe known then held a series."""
        return was_included(self.universes, series.symbol, at_ms)

    def eligible(
        self, lake: CandleLake, series: Series, open_time_ms: npt.NDArray[np.int64], decided_ms: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """
        Mark the candles at whose decision a series was in the week's universe, and passed the filters of each candle.

        Raises:
            CorruptFileError: A partition of the lake is damaged.
        """
        included = self.included(series, decided_ms)
        if self.filters is None or not included.any():
            return included
        first_ms, last_ms = int(open_time_ms[0]), int(open_time_ms[-1])
        rows = lake.read_rows(series, first_ms - DAY_MS, last_ms + 1)
        said = [one for one in self.listings if one.symbol == series.symbol]
        return included & self.filters.passed(series.timeframe, rows, open_time_ms, decided_ms, said)


def rules_of(settings: FlowSettings) -> Rules:
    """
    Return the rules of the file that the settings name, else those of the policy in force, else the defaults.

    Raises:
        BadInputError: The file of rules cannot be used.
        PolicyStoreError: What is in force cannot be known.
    """
    if settings.universe is not None:
        return read_rules(settings.universe)
    found = PolicyStore(settings.home / "policy", now_ms=utc_now_ms).newest()
    rules = read_rules()
    return rules if found is None else Rules(universe_of(found.policy), rules.lists)


def universe_of(policy: Policy) -> UniversePolicy:
    """Return what a policy's section universe says of the candidates of each week."""
    is_list = policy.universe_mode is UniverseMode.LIST
    return UniversePolicy(
        mode=Mode(policy.universe_mode.value),
        symbols=policy.allowed_symbols if is_list else (),
        blacklist=policy.denied_symbols,
        min_volume_24h=float(policy.min_volume_24h),
        min_liquidity=float(policy.min_liquidity),
        max_symbols=policy.max_symbols,
    )


def members_of(settings: FlowSettings, rules: str | None = None, filters: CandleFilters | None = None) -> Members:
    """Return who was in by the rules of the settings, or by those of a fingerprint and filters of each candle."""
    market = _market(settings)
    if rules is None:
        chosen = rules_of(settings)
        rules, filters = chosen.fingerprint, CandleFilters.of(chosen.policy)
    listings = listings_of(settings.kind_store(), market.venue)
    return Members(market, _archive(settings).history(market, rules), filters, listings)


def build_universes(
    settings: FlowSettings, *, again: bool = False, progress: Callable[[str, float], None] = lambda _doing, _share: None
) -> list[StoredUniverse]:
    """
    Make the universe of every week that the lake reaches and that is not stored yet.

    Raises:
        BadInputError: No candle is stored, or the rules cannot be used.
        CorruptFileError: A stored file is damaged.
    """
    lake, market = settings.candle_lake(), _market(settings)

    def show(done: StoredUniverse, number: int, weeks: int) -> None:
        progress(moment(done.universe.at_ms), number / weeks)

    now_ms = seen_ms(lake, market)
    listings = listings_of(settings.kind_store(), market.venue)
    return build_weeks(
        lake, _archive(settings), market, rules_of(settings), now_ms, listings=listings, again=again, progress=show
    )


def stored_universes(settings: FlowSettings) -> list[StoredUniverse]:
    """Return every revision of every stored week, oldest first."""
    return _archive(settings).history(_market(settings), rules_of(settings).fingerprint)


def without_candles(settings: FlowSettings) -> list[str]:
    """
    Return the symbols that the rules could include, that the venue was seen to list, and of which nothing is stored.

    No universe can include them: whatever past week they traded in is chosen without them.
    """
    market, rules = _market(settings), rules_of(settings)
    stored = {one.symbol for one in settings.candle_lake().series() if one.venue == market.venue}
    recorded = {one.symbol for one in listings_of(settings.kind_store(), market.venue)}
    named = {*known_markets(settings), *recorded} - stored
    return sorted(one for one in named if considered(one, rules.policy, rules.lists))


def universe_at(settings: FlowSettings, time_ms: int) -> StoredUniverse:
    """
    Return the universe in force at a moment, as it was known then.

    Raises:
        NoUniverseError: None was known then.
    """
    found = _archive(settings).as_of(_market(settings), rules_of(settings).fingerprint, time_ms)
    if found is None:
        raise NoUniverseError(
            f"No universe of {settings.venue} {settings.timeframe} by these rules was known at {moment(time_ms)}; "
            "'qtctl universe build' makes those of all weeks that the lake reaches"
        )
    return found


def newest_universe(settings: FlowSettings) -> StoredUniverse:
    """
    Return the universe in force now, as far as stored candles tell the venue's time.

    Raises:
        BadInputError: No candle is stored.
        NoUniverseError: None is stored: the lake does not reach a whole week yet.
    """
    return universe_at(settings, seen_ms(settings.candle_lake(), _market(settings)))


def _market(settings: FlowSettings) -> Market:
    return Market(settings.venue, Timeframe.parse(settings.timeframe))


def _archive(settings: FlowSettings) -> UniverseArchive:
    return UniverseArchive(settings.universes)
