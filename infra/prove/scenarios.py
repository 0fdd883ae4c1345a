"""Markets that break: a flash crash, a gap, a funding spike, a delisting, a dead feed, a hundred positions."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, HIGH, LOW, OPEN
from feature_store.clock import monotonic
from feature_store.sources.recorded import read_file
from inference.domain.policy import Policy
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import FOLDER_VARIABLE, sound, what_was_used
from infra.prove.scenario_walk import Floats, ScenarioWalk, Seen, Story

_ROWS, _AT = 120, 80
# Prices within an ordinary candle, and within one in which much happens.
_QUIET, _MOMENTS = 6, 24
_SEEDS, _SEEDS_OF_MANY = {Size.FULL: 12, Size.CI: 2}, {Size.FULL: 3, Size.CI: 1}
_MOST_RECORDED, _LEAST_RECORDED = 12, 3
_RECORDED = {Size.FULL: 6, Size.CI: 1}
_BALANCE = Decimal(20_000)
# Enough that nothing but the number of positions holds back; and so that a hundred of them are twice the equity.
_RICH, _MANY_BALANCE = Decimal(1_000_000), Decimal(105_000)
WALL = Policy().wall_daily_drawdown
SLIPPAGE = Decimal("0.02")
"""How much of equity stops may cost beyond their prices where prices slide; where they jump, the jump is stated."""
_GAP, _WIDE_GAP, _CRASH = 0.10, 0.25, 0.15
_FUNDING = Decimal("0.02")

# Whatever is entered is held to the end, unless something happens to it.
_HELD = Policy(max_holding_candles=200)

Change = Callable[[Story], Story]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    What happens to a market, and the state and the deepest loss that it must end with.

    `states` are those that are right, and `recorded` those on recorded markets where they are others; which of several
    it is depends on what a market had done before. `most_loss` is a fraction of equity, `flat` says that nothing may be
    open.
    """

    name: str
    change: Change
    states: tuple[str, ...]
    most_loss: Decimal
    symbols: int = 12
    policy: Policy = _HELD
    balance: Decimal = _BALANCE
    flat: bool = False
    check: Callable[[Seen], list[str]] = lambda _: []
    recorded: tuple[str, ...] = ()

    def right_states(self, *, recorded: bool) -> tuple[str, ...]:
        """Return the states that are right on a kind of market."""
        return self.recorded if recorded and self.recorded else self.states


# -- what happens ------------------------------------------------------------------------------------------------------


def _at(story: Story, row: int, factors: Floats, *, after: float) -> Story:
    """Multiply the prices within one candle, and all later ones by what is left of it."""
    ticks = list(story.ticks)
    first = ticks[row - 1][-1]
    ticks[row] = first[None, :] * factors[:, None]
    ticks[row + 1 :] = [one * after for one in ticks[row + 1 :]]
    return replace(story, ticks=tuple(ticks))


def flash_crash(story: Story) -> Story:
    """All prices slide by 15 % within one candle, through every stop, and come back by two thirds."""
    down = np.linspace(1.0, 1.0 - _CRASH, _MOMENTS)
    back = np.linspace(1.0 - _CRASH, 1.0 - _CRASH / 3, _MOMENTS // 2)
    return _at(story, _AT, np.concatenate([down, back]), after=1.0 - _CRASH / 3)


def gap(story: Story) -> Story:
    """All prices open 10 % lower than they closed: no stop is filled where it stands."""
    return _at(story, _AT, np.full(_MOMENTS, 1.0 - _GAP), after=1.0 - _GAP)


def wide_gap(story: Story) -> Story:
    """All prices open 25 % lower: further than the wall."""
    return _at(story, _AT, np.full(_MOMENTS, 1.0 - _WIDE_GAP), after=1.0 - _WIDE_GAP)


def funding_spike(story: Story) -> Story:
    """Funding of 2 % is taken three times, an hour apart."""
    return replace(story, funding=dict.fromkeys((_AT, _AT + 12, _AT + 24), _FUNDING))


def delisting(story: Story) -> Story:
    """Two symbols are settled by the venue and gone."""
    return replace(story, delisted={_AT: story.symbols[1], _AT + 5: story.symbols[2]})


def dead_feed(story: Story) -> Story:
    """For an hour nobody is told of any candle, and meanwhile all prices fall by 8 %."""
    fallen = _at(story, _AT + 3, np.linspace(1.0, 0.92, _MOMENTS), after=0.92)
    return replace(fallen, dead=range(_AT, _AT + 12))


def nothing(story: Story) -> Story:
    """Nothing particular happens."""
    return story


# -- what must have been seen ------------------------------------------------------------------------------------------


def _many(least: int) -> Callable[[Seen], list[str]]:
    def check(seen: Seen) -> list[str]:
        return [] if seen.most_positions == least else [f"{seen.most_positions} positions at most, not {least}"]

    return check


def _position_21(seen: Seen) -> list[str]:
    return _many(20)(seen) + ([] if seen.denied["MAX_POSITIONS"] else ["no candidate was refused as the 21st"])


def _gone(seen: Seen) -> list[str]:
    return [] if len(seen.open_at_end) <= 10 else [f"{len(seen.open_at_end)} open of ten that are listed"]


_HELD_BACK, _STOPPED = "ACTIVE, held by DAILY_DRAWDOWN", "HALTED by DRAWDOWN"
# A market that goes its own way may have cost the day's limit, and no more than that.
_LIMITS = ("ACTIVE", _HELD_BACK)


def _gap_loss(exposure: Decimal) -> Decimal:
    """Return what a wide gap may cost of equity: its share of what is carried, which prices moved before, and more."""
    return max(WALL, Decimal(str(_WIDE_GAP)) * exposure * Decimal("1.05")) + SLIPPAGE


_WIDE = Policy(
    max_positions=100,
    max_exposure=Decimal(2),
    max_portfolio_heat=Decimal(1),
    max_correlated_exposure=Decimal(2),
    max_btc_beta=None,
    min_notional=Decimal(5),
    max_notional=Decimal(2000),
    max_holding_candles=200,
)
SCENARIOS = (
    Scenario(name="quiet", change=nothing, states=_LIMITS, most_loss=WALL),
    Scenario(
        name="position 21",
        change=nothing,
        states=_LIMITS,
        most_loss=WALL,
        symbols=30,
        balance=_RICH,
        check=_position_21,
    ),
    # Stops are filled on the way down: what they cost is within the heat, far from the wall.
    Scenario(name="flash crash", change=flash_crash, states=_LIMITS, most_loss=WALL + SLIPPAGE),
    # A tenth of 1.2 times the equity that is carried: beyond the day's limit, within the wall.
    Scenario(name="gap of 10 %", change=gap, states=(_HELD_BACK,), most_loss=WALL + SLIPPAGE),
    Scenario(
        name="gap of 25 %",
        change=wide_gap,
        # Where the day's limit was reached before, little is open as it comes.
        states=(_STOPPED, _HELD_BACK),
        recorded=(_STOPPED,),
        # No stop helps where no price is traded: exposure does, which here is 12 positions of 2,000 on 20,000.
        most_loss=_gap_loss(Decimal(12) * _HELD.max_notional / _BALANCE),
        flat=True,
    ),
    Scenario(
        name="gap of 25 %, once",
        change=wide_gap,
        states=(_STOPPED, _HELD_BACK),
        # The same with no more than the equity carried.
        policy=replace(_HELD, max_exposure=Decimal(1)),
        most_loss=_gap_loss(Decimal(1)),
        flat=True,
    ),
    Scenario(name="funding spike", change=funding_spike, states=_LIMITS, most_loss=WALL),
    Scenario(name="delisting", change=delisting, states=_LIMITS, most_loss=WALL, check=_gone),
    Scenario(
        name="dead feed", change=dead_feed, states=("HALTED by DATA_FEED",), most_loss=WALL + SLIPPAGE, flat=False
    ),
    Scenario(
        name="100 positions",
        change=nothing,
        states=_LIMITS,
        most_loss=WALL,
        symbols=110,
        policy=_WIDE,
        balance=_MANY_BALANCE,
        check=_many(100),
    ),
    Scenario(
        name="100 positions, crash",
        change=flash_crash,
        # A hundred stops cost more than the day's limit, and no more than the heat of twice the equity.
        states=(_HELD_BACK,),
        most_loss=WALL + SLIPPAGE,
        symbols=110,
        policy=_WIDE,
        balance=_MANY_BALANCE,
        check=_many(100),
    ),
)


def prove(size: Size) -> Proof:
    """Walk every scenario on synthetic markets and on recorded ones; hold state and loss against what is stated."""
    began = monotonic()
    recorded = _recorded(_RECORDED[size])
    rows: list[str] = []
    wrong: list[str] = []
    walks = 0
    for scenario in SCENARIOS:
        markets = [
            (f"seed {seed}", _synthetic(scenario.symbols, seed), False) for seed in range(_seeds(scenario, size))
        ]
        markets += [(name, story, True) for name, story in recorded if scenario.symbols <= _MOST_RECORDED]
        found = [(name, ScenarioWalk(scenario.change(one), scenario.policy, balance=scenario.balance).run(), is_real)
                 for name, one, is_real in markets]  # fmt: skip
        walks += len(found)
        wrong += [
            f"{scenario.name}, {name}: {text}"
            for name, seen, is_real in found
            for text in _judged(scenario, seen, recorded=is_real)
        ]
        states = sorted({seen.state for _, seen, _ in found})
        deepest = max(seen.loss for _, seen, _ in found)
        rows.append(
            f"{scenario.name:<22} loss at most {deepest:6.2%} of {scenario.most_loss:.0%}, "
            f"{max(seen.most_positions for _, seen, _ in found):>3} positions; {'; '.join(states)}"
        )
    failed = {one.split(",", 1)[0] for one in wrong}
    return Proof(
        name="scenarios",
        figure=f"{len(SCENARIOS)} scenarios on {walks} markets: {len(failed)} not in the stated state or beyond the "
        f"stated loss",
        bar=f"0; the wall of {WALL:.0%}, and {SLIPPAGE:.0%} of slippage where prices slide; each gap as stated",
        holds=not wrong,
        details=(
            f"{what_was_used(len(recorded))}; {monotonic() - began:.0f} s",
            *rows,
            *wrong[:40],
        ),
    )


def _seeds(scenario: Scenario, size: Size) -> int:
    return (_SEEDS if scenario.symbols <= _MOST_RECORDED else _SEEDS_OF_MANY)[size]


def _judged(scenario: Scenario, seen: Seen, *, recorded: bool = False) -> list[str]:
    wrong, states = scenario.check(seen), scenario.right_states(recorded=recorded)
    if seen.state not in states:
        wrong.append(f"ended {seen.state}, not {' or '.join(states)}")
    if seen.unprotected:
        wrong.append(f"{seen.unprotected} positions were open without a stop")
    if seen.loss > scenario.most_loss:
        wrong.append(f"lost {seen.loss:.2%}, more than {scenario.most_loss:.2%}")
    if seen.entries_stopped:
        wrong.append(f"{seen.entries_stopped} entries after the stop")
    if scenario.flat and seen.trips and seen.open_at_end:
        wrong.append(f"{len(seen.open_at_end)} positions are open in the end")
    if not seen.entries:
        wrong.append("nothing was entered, so that nothing was shown")
    return wrong


def _synthetic(count: int, seed: int) -> Story:
    """Return a market of one factor and noise, as crypto moves: most symbols with BTC, each with its own beta."""
    rng = np.random.default_rng(seed)
    names = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")
    symbols = (*names, *(f"S{number:02}/USDT:USDT" for number in range(count - len(names))))[:count]
    start = np.concatenate([[50_000.0, 3_000.0, 150.0], rng.uniform(5, 500, count)])[:count]
    betas = np.concatenate([[1.0], rng.uniform(0.7, 1.6, count)])[:count]
    common = rng.normal(0, 0.0008, _ROWS * _QUIET)
    own = rng.normal(0, 0.0004, (_ROWS * _QUIET, count))
    prices = start * np.exp(np.cumsum(common[:, None] * betas + own, axis=0))
    return Story(symbols=symbols, ticks=tuple(np.split(prices, _ROWS)))


def _recorded(limit: int) -> list[tuple[str, Story]]:
    """Return stretches of recorded five-minute candles, several symbols of a file together; none without a folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    found: list[tuple[str, Story]] = []
    for path in sorted(Path(folder).glob("*_5m_*.parquet")) if folder else ():
        story = _story(path)
        if story is not None:
            found.append((path.name, story))
        if len(found) == limit:
            break
    return found


def _story(path: Path) -> Story | None:
    several: dict[str, Floats] = {}
    times: npt.NDArray[np.int64] | None = None
    for series, block in read_file(path):
        kept = sound(block, series.timeframe)[:_ROWS]
        times = kept.open_time_ms if times is None else times
        if len(kept) == _ROWS and (kept.open_time_ms == times).all():
            # Within a candle: open, low, high, close.
            several[f"{series.symbol.split('/', 1)[0]}/USDT:USDT"] = kept.values[:, [OPEN, LOW, HIGH, CLOSE]]
        if len(several) == _MOST_RECORDED:
            break
    if len(several) < _LEAST_RECORDED:
        return None
    return Story(symbols=tuple(several), ticks=tuple(np.stack(list(several.values()), axis=2)))
