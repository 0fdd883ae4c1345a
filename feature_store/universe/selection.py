"""Which symbols a policy admits to the universe, and for each other one the first filter that refused it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from feature_store.errors import BadInputError

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
_FIRST_MONDAY_MS = 4 * DAY_MS  # 1970 began on a Thursday.
_MINUTE_MS = 60_000
# Contracts on a thousand or a million units of a cheap asset are contracts on that asset.
_MULTIPLE = re.compile(r"^(?:1000(?:000)?|1M)(?=[A-Z])")


class Mode(StrEnum):
    """Which symbols are considered at all."""

    L1L2_TOP = "l1l2-top"
    """Those whose asset is a layer-1 or layer-2 coin or a megacap, the ones that trade most first."""

    ALL = "all"
    LIST = "list"
    """Those that the policy names."""


class AssetClass(StrEnum):
    """What an asset is, by the lists."""

    LAYER_1 = "layer-1"
    LAYER_2 = "layer-2"
    MEGACAP = "megacap"


class Refusal(StrEnum):
    """The filters, in the order in which they are asked."""

    OTHER_QUOTE = "OTHER_QUOTE"
    BLACKLISTED = "BLACKLISTED"
    NOT_IN_MODE = "NOT_IN_MODE"
    NOT_YET_LISTED = "NOT_YET_LISTED"
    DELISTED = "DELISTED"
    STALE = "STALE"
    TOO_YOUNG = "TOO_YOUNG"
    VOLUME_BELOW_MINIMUM = "VOLUME_BELOW_MINIMUM"
    LIQUIDITY_BELOW_MINIMUM = "LIQUIDITY_BELOW_MINIMUM"
    BEYOND_SIZE_CAP = "BEYOND_SIZE_CAP"


Numbers = dict[str, float | str]
"""What a filter compared, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniversePolicy:
    """
    The rules of a universe; volume and liquidity are in units of the quote.

    Names in `symbols`, `blacklist` and `whitelist` are symbols (`BTC/USDT:USDT`) or assets (`BTC`). The whitelist adds
    to what the mode considers; all other filters still hold. The blacklist wins over everything.
    """

    mode: Mode = Mode.L1L2_TOP
    symbols: tuple[str, ...] = ()
    blacklist: tuple[str, ...] = ()
    whitelist: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ("USDT", "UST")
    min_volume_24h: float = 1_000_000.0
    min_liquidity: float = 50_000.0
    min_age_days: float = 14.0
    max_silence_minutes: float = 60.0
    max_symbols: int = 100

    def __post_init__(self) -> None:
        """Refuse rules that mean nothing."""
        for name in ("min_volume_24h", "min_liquidity", "min_age_days", "max_silence_minutes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"A universe's {name} must be a number from 0, was {value!r}")
            # So that 10 and 10.0 are the same rule.
            object.__setattr__(self, name, float(value))
        if self.max_symbols < 1:
            raise BadInputError(f"A universe's max_symbols must be 1 or more, was {self.max_symbols}")
        if (self.mode is Mode.LIST) != bool(self.symbols):
            raise BadInputError(
                f"Universe mode {Mode.LIST!s} and a list of symbols go together, "
                f"were mode {self.mode!s} and {len(self.symbols)} symbols"
            )


@dataclass(frozen=True, slots=True)
class ListedAsset:
    """An asset on a list, from the day on which it belonged there; without a day, always."""

    asset: str
    since_ms: int | None = None
    until_ms: int | None = None

    def holds_at(self, time_ms: int) -> bool:
        """Tell whether the asset belonged to the list at a moment."""
        return (self.since_ms is None or self.since_ms <= time_ms) and (
            self.until_ms is None or time_ms < self.until_ms
        )


@dataclass(frozen=True, slots=True)
class AssetLists:
    """A version of the layer-1, layer-2 and megacap lists."""

    version: str
    members: Mapping[AssetClass, tuple[ListedAsset, ...]] = field(default_factory=dict)

    def classes(self, time_ms: int) -> dict[str, tuple[AssetClass, ...]]:
        """Return the assets on any list at a moment, each with its classes."""
        found: dict[str, tuple[AssetClass, ...]] = {}
        for asset_class in AssetClass:
            for one in self.members.get(asset_class, ()):
                if one.holds_at(time_ms):
                    found[one.asset] = (*found.get(one.asset, ()), asset_class)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SymbolFacts:
    """
    What was known of a symbol at a moment.

    Args:
        symbol: The unified name.
        volume_24h: Quote units traded in the last 24 hours.
        liquidity: Quote units that change hands in an hour, the median of the last week's hours.
        first_open_ms: Open time of the oldest known candle: the symbol is at least as old as that.
        last_close_ms: Close time of the newest known candle.
        listed_ms: When the venue began or will begin to trade it, where the venue says so.
        delisted_ms: When the venue stops trading it, where the venue says so.
    """

    symbol: str
    volume_24h: float
    liquidity: float
    first_open_ms: int
    last_close_ms: int
    listed_ms: int | None = None
    delisted_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse facts that cannot be."""
        for name in ("volume_24h", "liquidity"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInputError(f"{self.symbol} needs a {name} from 0, was {value!r}; check its candles")
        if self.last_close_ms <= self.first_open_ms:
            raise BadInputError(
                f"{self.symbol} closed its last candle at {self.last_close_ms} ms, before its first opened at "
                f"{self.first_open_ms} ms; check its candles"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    A symbol's place in the universe, or the filter that refused it with what was compared.

    `rank` counts from 1, by volume.
    """

    facts: SymbolFacts
    classes: tuple[AssetClass, ...] = ()
    rank: int | None = None
    refusal: Refusal | None = None
    numbers: Numbers = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        """The symbol judged."""
        return self.facts.symbol

    @property
    def is_included(self) -> bool:
        """Whether the symbol belongs to the universe."""
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Universe:
    """Every symbol known at a moment: first those included, by rank, then the others by name."""

    at_ms: int
    verdicts: tuple[Verdict, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The included symbols, by rank."""
        return tuple(one.symbol for one in self.verdicts if one.is_included)

    def verdict(self, symbol: str) -> Verdict | None:
        """Return what was decided on a symbol, None where nothing was known of it."""
        return next((one for one in self.verdicts if one.symbol == symbol), None)


def week_start_ms(time_ms: int) -> int:
    """Return the Monday 00:00 UTC at or before a moment: when weekly candidates are chosen."""
    return time_ms - (time_ms - _FIRST_MONDAY_MS) % WEEK_MS


def base_asset(symbol: str) -> str:
    """Return the asset that a symbol trades: `SHIB` of `1000SHIB/USDT:USDT`."""
    return _MULTIPLE.sub("", symbol.partition("/")[0])


def quote_of(symbol: str) -> str:
    """Return what a symbol is priced in, nothing where its name does not say."""
    return symbol.partition("/")[2].partition(":")[0]


def weekly_candidates(facts: Iterable[SymbolFacts], policy: UniversePolicy, lists: AssetLists, at_ms: int) -> Universe:
    """
    Choose the symbols that may be traded until the next weekly choice, from what was known at a moment.

    Each symbol is included or has the first filter that refused it. Those that trade most come first, equal volumes by
    name. A symbol is stale against the newest candle of all, so that an outage of the whole venue empties nothing.

    Raises:
        BadInputError: Two facts are of the same symbol.
    """
    known = sorted(facts, key=lambda one: one.symbol)
    for before, after in pairwise(known):
        if before.symbol == after.symbol:
            raise BadInputError(f"Facts of {after.symbol} were given twice; give each symbol once")
    classes = lists.classes(at_ms)
    newest_ms = max((one.last_close_ms for one in known), default=at_ms)
    passed: list[Verdict] = []
    refused: list[Verdict] = []
    for one in known:
        of_asset = classes.get(base_asset(one.symbol), ())
        denied = _never_considered(one.symbol, policy, of_asset) or _unfit(one, policy, at_ms, newest_ms)
        if denied is None:
            passed.append(Verdict(facts=one, classes=of_asset))
        else:
            refused.append(Verdict(facts=one, classes=of_asset, refusal=denied[0], numbers=denied[1]))
    passed.sort(key=lambda one: (-one.facts.volume_24h, one.symbol))
    included = [
        Verdict(facts=one.facts, classes=one.classes, rank=rank)
        for rank, one in enumerate(passed[: policy.max_symbols], start=1)
    ]
    beyond = [
        Verdict(
            facts=one.facts,
            classes=one.classes,
            refusal=Refusal.BEYOND_SIZE_CAP,
            numbers={"place": place, "maximum": policy.max_symbols},
        )
        for place, one in enumerate(passed[policy.max_symbols :], start=policy.max_symbols + 1)
    ]
    return Universe(at_ms, (*included, *sorted([*refused, *beyond], key=lambda one: one.symbol)))


def refused_now(facts: SymbolFacts, policy: UniversePolicy, now_ms: int) -> tuple[Refusal, Numbers] | None:
    """
    Return why a weekly candidate may not be traded at this candle, None where it may.

    It must not be blacklisted meanwhile, still be listed, have a fresh candle, and trade enough now.
    """
    if _named(facts.symbol, policy.blacklist):
        return Refusal.BLACKLISTED, {}
    return _gone(facts, policy, now_ms, now_ms) or _too_little_volume(facts, policy)


def considered(symbol: str, policy: UniversePolicy, lists: AssetLists) -> bool:
    """Tell whether a symbol can be included at any time, whatever its market does: whether to keep its candles."""
    listed = tuple(one for one, members in lists.members.items() if base_asset(symbol) in {m.asset for m in members})
    return _never_considered(symbol, policy, listed) is None


def _never_considered(
    symbol: str, policy: UniversePolicy, classes: tuple[AssetClass, ...]
) -> tuple[Refusal, Numbers] | None:
    if quote_of(symbol) not in policy.quotes:
        return Refusal.OTHER_QUOTE, {"quote": quote_of(symbol), "allowed": ", ".join(policy.quotes)}
    if _named(symbol, policy.blacklist):
        return Refusal.BLACKLISTED, {}
    chosen = policy.mode is Mode.ALL or (
        bool(classes) if policy.mode is Mode.L1L2_TOP else _named(symbol, policy.symbols)
    )
    if not chosen and not _named(symbol, policy.whitelist):
        return Refusal.NOT_IN_MODE, {"mode": str(policy.mode), "asset": base_asset(symbol)}
    return None


def _unfit(facts: SymbolFacts, policy: UniversePolicy, at_ms: int, newest_ms: int) -> tuple[Refusal, Numbers] | None:
    gone = _gone(facts, policy, at_ms, newest_ms)
    if gone is not None:
        return gone
    born_ms = facts.first_open_ms if facts.listed_ms is None else min(facts.first_open_ms, facts.listed_ms)
    age_days = (at_ms - born_ms) / DAY_MS
    if age_days < policy.min_age_days:
        return Refusal.TOO_YOUNG, {"age_days": age_days, "minimum": policy.min_age_days}
    if (denied := _too_little_volume(facts, policy)) is not None:
        return denied
    if facts.liquidity < policy.min_liquidity:
        return Refusal.LIQUIDITY_BELOW_MINIMUM, {"liquidity": facts.liquidity, "minimum": policy.min_liquidity}
    return None


def _gone(facts: SymbolFacts, policy: UniversePolicy, at_ms: int, newest_ms: int) -> tuple[Refusal, Numbers] | None:
    if facts.listed_ms is not None and facts.listed_ms > at_ms:
        return Refusal.NOT_YET_LISTED, {"listed_ms": facts.listed_ms}
    if facts.delisted_ms is not None and facts.delisted_ms <= at_ms:
        return Refusal.DELISTED, {"delisted_ms": facts.delisted_ms}
    silence = (newest_ms - facts.last_close_ms) / _MINUTE_MS
    if silence > policy.max_silence_minutes:
        return Refusal.STALE, {"minutes_without_candle": silence, "maximum": policy.max_silence_minutes}
    return None


def _too_little_volume(facts: SymbolFacts, policy: UniversePolicy) -> tuple[Refusal, Numbers] | None:
    if facts.volume_24h < policy.min_volume_24h:
        return Refusal.VOLUME_BELOW_MINIMUM, {"volume_24h": facts.volume_24h, "minimum": policy.min_volume_24h}
    return None


def _named(symbol: str, names: tuple[str, ...]) -> bool:
    return symbol in names or base_asset(symbol) in names
