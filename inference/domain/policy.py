"""All trading rules of a deployment, as one frozen, fingerprinted value."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum

from inference.domain.bias import CANDLES_KEPT, BiasMode, BiasRules
from inference.domain.errors import PolicyError
from inference.domain.policy_rules import Rule, Section, first_rule, rule, rule_of
from inference.domain.quality import QualityCode
from inference.domain.regime_rules import UNKNOWN, figures_of
from inference.domain.trading_window import days_of, windows_of


class EntryStyle(StrEnum):
    """How an entry is worked: at market, or resting at the best price of its own side for a while."""

    MARKET = "market"
    # What rests is cancelled once its time is over, and the rest bought or sold at market.
    LIMIT = "limit"
    # It follows the best price and never takes; what has not been filled in time is not entered.
    POST_ONLY = "post_only"


class Ranking(StrEnum):
    """
    Which candidate comes first: the best net edge, or the best by what it risks.

    The second is net edge per unit of what is lost at the stop, times confidence, less what look-alikes take off.
    """

    NET_EDGE = "net_edge"
    RISK_ADJUSTED = "risk_adjusted"


class UniverseMode(StrEnum):
    """Which symbols are considered at all: layer-1 and layer-2 coins and megacaps, all, or those that are named."""

    L1L2_TOP = "l1l2-top"
    ALL = "all"
    LIST = "list"


BARRIERS = "BARRIERS"
"""The exits that every policy has: one stop, one target, a time."""

EXIT_PROFILE_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,39}")

_UNIVERSE, _RISK, _EXECUTION, _EXITS, _CONSTRAINTS, _SUPERVISION = Section
_D = Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The rules a candidate must pass.

    `confidence_threshold` None means: the threshold tuned in training and carried by the bundle. Elsewhere None means
    that there is no such limit. Fractions are of equity (0.03 is three percent); money is quote currency; drawdowns and
    losses are positive numbers. Limits refuse entries until the time is over; walls set off the emergency stop.
    """

    confidence_threshold: float | None = first_rule(
        None, _EXECUTION, "least confidence of an entry; none leaves it to the model's bundle", bounds="[0.5, 1)"
    )
    cooldown_seconds: int = first_rule(120, _CONSTRAINTS, "pause between entries of one symbol", bounds="[0, inf)")
    max_positions: int = first_rule(20, _CONSTRAINTS, "positions and entries in flight together", bounds="[1, 500]")
    min_notional: Decimal = first_rule(_D(100), _RISK, "least worth of a position; below it none", bounds="(0, inf)")
    max_notional: Decimal = first_rule(_D(2000), _RISK, "largest worth of a position", bounds="(0, inf)")
    max_exposure: Decimal = first_rule(_D(2), _RISK, "gross notional, as a multiple of equity", bounds="[0, inf)")
    max_daily_drawdown: Decimal = first_rule(_D("0.03"), _RISK, "loss since the day began, UTC", bounds="(0, 0.15]")
    risk_per_trade: Decimal = first_rule(_D("0.01"), _RISK, "loss at the stop, costs included", bounds="(0, 0.05]")
    max_portfolio_heat: Decimal = first_rule(_D("0.06"), _RISK, "loss if every stop is hit", bounds="[0, inf)")
    leverage: int = first_rule(3, _RISK, "leverage set at the venue", bounds="[1, 30]")
    stop_atr_multiple: Decimal = first_rule(_D(3), _EXITS, "stop, in average true ranges", bounds="(0, inf)")
    target_atr_multiple: Decimal = first_rule(_D(4), _EXITS, "target, in average true ranges", bounds="(0, inf)")
    max_holding_candles: int = first_rule(12, _EXITS, "candles after which a position ends", bounds="[1, inf)")
    taker_fee: Decimal = first_rule(_D("0.0005"), _EXECUTION, "fee of one side, share of notional", bounds="(-1, 1)")
    slippage: Decimal = first_rule(_D("0.0002"), _EXECUTION, "slippage of one side, share of price", bounds="(-1, 1)")
    stale_after_candles: int = first_rule(1, _EXECUTION, "candles after which data is stale", bounds="[0, inf)")
    entry_style: EntryStyle = first_rule(EntryStyle.MARKET, _EXECUTION, "how an entry is worked")
    entry_patience_seconds: int = first_rule(30, _EXECUTION, "how long an entry rests", bounds="[1, 3600]")

    # What follows came later.
    universe_mode: UniverseMode = rule(UniverseMode.L1L2_TOP, _UNIVERSE, "which symbols are considered at all")
    max_symbols: int = rule(100, _UNIVERSE, "symbols of a universe, the most traded first", bounds="[1, 1000]")
    min_volume_24h: Decimal = rule(_D(1_000_000), _UNIVERSE, "quote units traded in 24 hours", bounds="[0, inf)")
    min_liquidity: Decimal = rule(_D(50_000), _UNIVERSE, "quote units in an hour, a week's median", bounds="[0, inf)")
    allowed_symbols: tuple[str, ...] = rule((), _UNIVERSE, "only these are entered; none named allows all")
    denied_symbols: tuple[str, ...] = rule((), _UNIVERSE, "these are never entered")

    max_spread: Decimal | None = rule(
        None, _EXECUTION, "spread, as a share of the middle, above which a quote is flagged", bounds="(0, 1]"
    )
    min_candle_volume: Decimal | None = rule(
        None, _EXECUTION, "quote units a candle, mean of 20, below which a market is flagged", bounds="[0, inf)"
    )
    quality_mode: BiasMode = rule(BiasMode.OBSERVE, _EXECUTION, "whether flags of quality refuse entries")
    refusing_flags: tuple[str, ...] = rule(
        (), _EXECUTION, "flags that refuse where they are enforced, such as FAR_FROM_TRAINING"
    )

    ranking: Ranking = rule(Ranking.NET_EDGE, _EXECUTION, "which candidate is looked at first")
    companion_factor: Decimal = rule(
        _D(1), _EXECUTION, "what each position on a side of a cluster leaves of another's rank", bounds="(0, 1]"
    )

    min_risk_per_trade: Decimal = rule(_D(0), _RISK, "loss at the stop below which none is made", bounds="[0, 0.05]")
    max_risk_per_trade: Decimal = rule(_D("0.05"), _RISK, "cap of every sizing's loss at the stop", bounds="(0, 0.05]")
    min_size_multiplier: Decimal = rule(_D(1), _RISK, "least factor that probability gives a size", bounds="(0, 1]")
    max_size_multiplier: Decimal = rule(_D(1), _RISK, "largest factor that probability gives a size", bounds="[1, 1.5]")
    kelly_fraction: Decimal | None = rule(None, _RISK, "share of Kelly's size that caps a size", bounds="(0, 0.5]")
    target_volatility: Decimal | None = rule(
        None, _RISK, "average true range by price above which sizes shrink", bounds="(0, 1]"
    )
    unknown_regime_size: Decimal = rule(
        _D(1), _RISK, "share of a size where the market's regime is not known", bounds="[0, 1]"
    )
    regime_sizes: tuple[str, ...] = rule(
        (), _RISK, "share of a size by regime, such as 'crash=0.25'; one not named leaves all of it"
    )
    regime_thresholds: tuple[str, ...] = rule(
        (), _RISK, "least confidence by regime, such as 'high_volatility=0.7', beside what every entry needs"
    )
    max_weekly_drawdown: Decimal = rule(_D("0.06"), _RISK, "loss since Monday, UTC", bounds="(0, 0.25]")
    warn_daily_drawdown: Decimal = rule(
        _D("0.02"), _RISK, "loss of a day that is told, not acted on", bounds="(0, 0.15]"
    )
    wall_daily_drawdown: Decimal = rule(_D("0.15"), _RISK, "loss of a day: emergency stop", bounds="(0, 0.15]")
    wall_weekly_drawdown: Decimal = rule(_D("0.25"), _RISK, "loss of a week: emergency stop", bounds="(0, 0.25]")
    wall_peak_drawdown: Decimal = rule(_D("0.20"), _RISK, "fall from equity's peak: emergency stop", bounds="(0, 0.2]")
    min_liquidation_stops: Decimal = rule(
        _D(3), _RISK, "distance to liquidation, in distances to the stop", bounds="[1, inf)"
    )
    maintenance_margin: Decimal = rule(
        _D("0.01"), _RISK, "share of notional at which the venue liquidates", bounds="[0, 0.5)"
    )
    correlation_threshold: Decimal = rule(
        _D("0.7"), _RISK, "correlation from which on symbols are one cluster", bounds="(0, 1]"
    )
    correlation_window_candles: int = rule(288, _RISK, "candles that correlation is of", bounds="[24, 2016]")
    max_correlated_exposure: Decimal | None = rule(
        None, _RISK, "gross notional of a cluster, as a multiple of equity", bounds="(0, inf)"
    )
    max_btc_beta: Decimal | None = rule(
        None, _RISK, "net notional weighted by beta to BTC, as a multiple of equity", bounds="(0, inf)"
    )
    max_concentration: Decimal | None = rule(
        None, _RISK, "notional of one symbol, as a multiple of equity", bounds="(0, inf)"
    )
    governor_min_confidence: float = rule(
        0.5, _RISK, "confidence below which the governor vetoes, whatever the threshold", bounds="[0.5, 1)"
    )
    governor_drawdown_share: Decimal | None = rule(
        None, _RISK, "share of a drawdown limit from which on the governor vetoes", bounds="(0, 1]"
    )
    governor_max_volatility: Decimal | None = rule(
        None, _RISK, "average true range by price above which the governor vetoes", bounds="(0, 1]"
    )
    governor_max_companions: int | None = rule(
        None,
        _RISK,
        "positions of a cluster on one side beside which the governor lets another stand",
        bounds="[0, 500]",
    )
    breaker_losses: int | None = rule(None, _RISK, "losses in a row that pause entries", bounds="[1, 100]")
    breaker_loss_share: Decimal | None = rule(
        None, _RISK, "loss of closed trades within the window that pauses entries", bounds="(0, 1)"
    )
    breaker_errors: int | None = rule(
        None, _RISK, "orders refused within the window that pause entries", bounds="[1, 1000]"
    )
    breaker_window_seconds: int = rule(3600, _RISK, "within which losses and refusals count", bounds="[1, 604800]")
    breaker_pause_seconds: int = rule(3600, _RISK, "how long the breaker pauses entries", bounds="[1, 604800]")
    emergency_errors: int = rule(5, _RISK, "execution errors in a row: more stop in emergency", bounds="[1, 100]")
    emergency_error_seconds: int = rule(300, _RISK, "within which those errors count", bounds="[1, 86400]")
    emergency_error_share: Decimal = rule(
        _D("0.5"), _RISK, "share of failed orders within them: more stop in emergency", bounds="(0, 1]"
    )
    emergency_feed_seconds: int = rule(300, _RISK, "silence of the feed: emergency stop", bounds="[1, 3600]")
    emergency_health_seconds: int = rule(60, _RISK, "critical health: emergency stop", bounds="[1, 3600]")
    emergency_reduce_share: Decimal = rule(_D("0.5"), _RISK, "share of what is open that it closes", bounds="(0, 1]")

    exit_profile: str = rule(BARRIERS, _EXITS, "by which profile positions end; BARRIERS: the three rules above")

    trading_windows: tuple[str, ...] = rule(
        (), _CONSTRAINTS, "hours of entries such as 'mon-fri 08:00-20:00', UTC; none named allows all"
    )
    days_off: tuple[str, ...] = rule((), _CONSTRAINTS, "days without entries such as 2026-12-25, UTC")
    global_cooldown_seconds: int = rule(0, _CONSTRAINTS, "pause between entries of any symbols", bounds="[0, 604800]")
    loss_cooldown_seconds: int = rule(0, _CONSTRAINTS, "pause of a symbol after it lost", bounds="[0, 604800]")
    max_entries_per_hour: int | None = rule(None, _CONSTRAINTS, "entries in any 60 minutes", bounds="[0, 100000]")
    max_entries_per_day: int | None = rule(None, _CONSTRAINTS, "entries in any 24 hours", bounds="[0, 100000]")
    max_symbol_entries_per_hour: int | None = rule(
        None, _CONSTRAINTS, "entries of one symbol in any 60 minutes", bounds="[0, 100000]"
    )
    max_symbol_entries_per_day: int | None = rule(
        None, _CONSTRAINTS, "entries of one symbol in any 24 hours", bounds="[0, 100000]"
    )

    bias_mode: BiasMode = rule(BiasMode.OBSERVE, _SUPERVISION, "whether a bias of signals refuses entries")
    bias_window: int = rule(20, _SUPERVISION, "candles a bias is counted over", bounds=f"[1, {CANDLES_KEPT}]")
    committee_mode: BiasMode = rule(BiasMode.OBSERVE, _SUPERVISION, "whether the committee's word refuses entries")
    bias_share: float = rule(0.7, _SUPERVISION, "share of one side that is a bias", bounds="[0.5, 1)")

    def __post_init__(self) -> None:
        """Refuse values outside their bounds and sets that contradict themselves."""
        for name, about in _RULES.items():
            value = getattr(self, name)
            if about.bounds is not None and value is not None and not about.bounds.hold(value):
                raise PolicyError(f"Policy refused: {name} must lie in {about.bounds.text}, was {value}")
            if name not in _OF_THE_FIRST and value == _DEFAULTS[name]:
                # A record leaves it out, and reads 0.15 where 0.150 was said: to the digit it is the default from here.
                object.__setattr__(self, name, _DEFAULTS[name])
        for holds, message in self._agreements():
            if not holds:
                raise PolicyError(f"Policy refused: {message}")
        windows_of(self.trading_windows)
        days_of(self.days_off)

    def _agreements(self) -> list[tuple[bool, str]]:
        both = sorted(set(self.allowed_symbols) & set(self.denied_symbols))
        sizes, least = figures_of(self.regime_sizes), figures_of(self.regime_thresholds)
        no_flags = sorted(set(self.refusing_flags) - set(QualityCode))
        return [
            (self.min_notional <= self.max_notional, "min_notional must not exceed max_notional"),
            (self.risk_per_trade <= self.max_portfolio_heat, "risk_per_trade must not exceed max_portfolio_heat"),
            (self.min_risk_per_trade <= self.risk_per_trade, "min_risk_per_trade must not exceed risk_per_trade"),
            (self.risk_per_trade <= self.max_risk_per_trade, "risk_per_trade must not exceed max_risk_per_trade"),
            (
                self.max_daily_drawdown <= self.wall_daily_drawdown,
                "max_daily_drawdown must not exceed wall_daily_drawdown, where the emergency stop begins",
            ),
            (
                self.max_weekly_drawdown <= self.wall_weekly_drawdown,
                "max_weekly_drawdown must not exceed wall_weekly_drawdown, where the emergency stop begins",
            ),
            (all(0 <= one <= 1 for one in sizes.values()), "regime_sizes are shares of a size, from 0 to 1"),
            (all(0 < one < 1 for one in least.values()), "regime_thresholds are confidences, between 0 and 1"),
            (UNKNOWN not in sizes, "regime_sizes has no unknown; say unknown_regime_size"),
            (not no_flags, f"refusing_flags takes {', '.join(QualityCode)}, was {', '.join(no_flags)}"),
            (
                self.quality_mode is BiasMode.OBSERVE or bool(self.refusing_flags),
                "quality_mode enforce needs refusing_flags, those that refuse",
            ),
            (not both, f"allowed_symbols and denied_symbols both name {', '.join(both)}"),
            (
                self.universe_mode is not UniverseMode.LIST or bool(self.allowed_symbols),
                "universe_mode list needs allowed_symbols, the list",
            ),
            (
                _at_most(self.max_entries_per_hour, self.max_entries_per_day),
                "max_entries_per_hour must not exceed max_entries_per_day",
            ),
            (
                _at_most(self.max_symbol_entries_per_hour, self.max_symbol_entries_per_day),
                "max_symbol_entries_per_hour must not exceed max_symbol_entries_per_day",
            ),
            (
                EXIT_PROFILE_NAME.fullmatch(self.exit_profile) is not None,
                f"exit_profile needs a name of capitals, digits and underscores, was {self.exit_profile[:60]!r}",
            ),
            (
                self.exit_profile == BARRIERS or 0 <= self.taker_fee < _D("0.5"),
                "exit_profile moves stops to where fees are paid: it needs a taker_fee in [0, 0.5)",
            ),
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every rule, so that a decision can name the policy it was made under."""
        rules = self.stated()
        if self.entry_style is EntryStyle.MARKET:
            # As it was before there was a choice: what is decided by it is the same.
            del rules["entry_style"], rules["entry_patience_seconds"]
        text = json.dumps(rules, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bias_rules(self) -> BiasRules:
        """By which rules signals are watched for a bias."""
        return BiasRules(mode=self.bias_mode, window=self.bias_window, share=self.bias_share)

    @property
    def asks_for_quality(self) -> bool:
        """Whether some rule asks what is to be said against what signals are made from."""
        limits = (self.max_spread, self.min_candle_volume)
        return self.quality_mode is BiasMode.ENFORCE or any(one is not None for one in limits)

    @property
    def ranks_clusters(self) -> bool:
        """Whether the order of candidates depends on which symbols move as one."""
        return self.ranking is Ranking.RISK_ADJUSTED and self.companion_factor < 1

    @property
    def counts_trades(self) -> bool:
        """Whether some rule asks for the entries of the last day or for losses."""
        limits = (
            self.max_entries_per_hour,
            self.max_entries_per_day,
            self.max_symbol_entries_per_hour,
            self.max_symbol_entries_per_day,
        )
        return self.loss_cooldown_seconds > 0 or any(one is not None for one in limits)

    def stated(self) -> dict[str, object]:
        """Return the rules that a record states: those of the first version, and later ones not at their default."""
        values = ((name, getattr(self, name)) for name in _RULES)
        return {name: value for name, value in values if name in _OF_THE_FIRST or value != _DEFAULTS[name]}


def _at_most(part: int | None, whole: int | None) -> bool:
    return part is None or whole is None or part <= whole


_RULES: dict[str, Rule] = {one.name: rule_of(one.metadata) for one in fields(Policy)}
_OF_THE_FIRST = frozenset(name for name, about in _RULES.items() if about.since_the_first)
_DEFAULTS: dict[str, object] = {one.name: one.default for one in fields(Policy)}


def policy_rules() -> dict[str, Rule]:
    """Return what is known of every rule, by its name and in the order of the policy."""
    return dict(_RULES)
