"""Exit profiles, trades and candles for tests, drawn and by hand."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from hypothesis import strategies as st

from inference.domain.exit_profile import ExitProfile, Target
from inference.domain.exit_state import ExitState, Held, TradeFacts
from inference.domain.market import Instrument
from inference.domain.signal import Direction
from inference.exits.brain import opened, step
from inference.exits.intrabar import ExitFill, Prices, candle_exits

D = Decimal
STEP_MS = 300_000
START_MS = 1_735_689_600_000
# What all drawn candles lie around, in ticks.
MIDDLE = 20_000


def instrument(*, tick: str = "0.01", step: str = "0.001", min_notional: str = "0") -> Instrument:
    """Return an instrument of the given steps, its least quantity one step."""
    return Instrument(
        symbol="A/USDT:USDT",
        price_tick=D(tick),
        quantity_step=D(step),
        min_quantity=D(step),
        max_quantity=D(10_000_000),
        min_notional=D(min_notional),
    )


def facts(
    *,
    direction: Direction = Direction.LONG,
    reference: str = "100",
    atr: str = "1",
    of: Instrument | None = None,
    fee: str = "0.0005",
    horizon: int = 12,
    liquidation: str | None = None,
) -> TradeFacts:
    """Return a trade as it is decided."""
    return TradeFacts(
        direction=direction,
        reference_price=D(reference),
        atr=D(atr),
        instrument=of or instrument(),
        fee=D(fee),
        timeframe_ms=STEP_MS,
        horizon_candles=horizon,
        planned_ms=START_MS,
        liquidation_price=None if liquidation is None else D(liquidation),
    )


def held(quantity: str = "1", price: str = "100") -> Held:
    """Return an entry that executed whole, at one price."""
    return Held(entered=D(quantity), cost=D(quantity) * D(price))


def entered(profile: ExitProfile, of: TradeFacts, quantity: str = "1", price: str = "100") -> ExitState:
    """Return the state of a trade that was entered whole."""
    state, _ = step(profile, opened(profile, of), held(quantity, price))
    return state


def candle(number: int, opened_at: str, high: str, low: str, close: str) -> Prices:
    """Return the candle of a number, the first from the decision on being 0."""
    return Prices(
        open=D(opened_at), high=D(high), low=D(low), close=D(close), close_ms=START_MS + (number + 1) * STEP_MS
    )


def walked(
    profile: ExitProfile, state: ExitState, candles: list[Prices]
) -> tuple[list[ExitState], list[tuple[int, ExitFill]]]:
    """Return the state after each candle, and each fill with the number of its candle."""
    states, fills = [], []
    for number, one in enumerate(candles):
        state, left = candle_exits(profile, state, one)
        states.append(state)
        fills += [(number, fill) for fill in left]
    return states, fills


@st.composite
def multiples(draw: st.DrawFn, low: int, high: int, *, is_round: bool) -> Decimal:
    """Return a multiple of average true ranges; round ones are exact as binary fractions, and meet ties."""
    if is_round:
        return D(draw(st.integers(max(1, low * 2), high * 2))) / 2
    return D(draw(st.integers(max(10, low * 100), high * 100))) / 100


@st.composite
def profiles(draw: st.DrawFn, *, is_round: bool = True, free: bool = False) -> ExitProfile:
    """Return a profile that agrees with itself; a free one has neither margin nor buffer."""
    stop = draw(multiples(1, 4, is_round=is_round))
    gaps = draw(st.lists(multiples(0, 3, is_round=is_round), max_size=4))
    sums = [sum(gaps[: place + 1], D(0)) for place in range(len(gaps))]
    weights = [draw(st.integers(1, 9)) for _ in gaps]
    whole = sum(weights) + draw(st.sampled_from([0, 0, 3]))
    shares = [D(weight * 10**8 // whole) / 10**8 for weight in weights]
    if shares and whole == sum(weights):
        shares[-1] = 1 - sum(shares[:-1], D(0))
    count = len(gaps) if whole > sum(weights) else max(0, len(gaps) - 1)
    trails = draw(st.booleans())
    return ExitProfile(
        name="DRAWN",
        stop_atr=stop,
        targets=tuple(Target(atr=away, share=share) for away, share in zip(sums, shares, strict=True)),
        stop_cap_r=draw(st.sampled_from([None, D(1), D("1.5")])),
        break_even_after=draw(st.integers(0, count)),
        break_even_margin=D(0) if free else draw(st.sampled_from([D(0), D("0.0005"), D("0.00012345")])),
        trail_atr=draw(multiples(1, 3, is_round=is_round)) if trails else None,
        trail_after_target=draw(st.integers(0, count)) if trails else 0,
        trail_after_r=draw(st.sampled_from([D(0), D("0.5"), D(1)])) if trails else D(0),
        time_stop_candles=draw(st.sampled_from([None, 1, 3, 8])),
        liquidation_buffer=D(0) if free else D("0.01"),
        liquidation_buffer_atr=D(0) if free else D(1),
    )


INSTRUMENTS = st.builds(
    instrument,
    tick=st.sampled_from(["0.01", "0.1", "0.00001"]),
    step=st.sampled_from(["0.001", "1", "0.1"]),
    min_notional=st.sampled_from(["0", "5", "100"]),
)
SIGNS = st.sampled_from([Direction.LONG, Direction.SHORT])


@st.composite
def trades(draw: st.DrawFn, *, of: st.SearchStrategy[Instrument] = INSTRUMENTS, is_round: bool = True,
           free: bool = False) -> TradeFacts:  # fmt: skip
    """Return a trade decided near the middle, with a range of some ticks."""
    traded = draw(of)
    ticks = D(draw(st.integers(40, 400))) / 4 + (D(0) if is_round else D("0.0137"))
    direction = draw(SIGNS)
    away = 1 if direction is Direction.SHORT else -1
    liquidation = None if free else draw(st.sampled_from([None, MIDDLE + away * 6000, MIDDLE + away * 900]))
    return TradeFacts(
        direction=direction,
        reference_price=MIDDLE * traded.price_tick,
        atr=ticks * traded.price_tick,
        instrument=traded,
        fee=D(0) if free else draw(st.sampled_from([D(0), D("0.0005"), D("0.001")])),
        timeframe_ms=STEP_MS,
        horizon_candles=draw(st.integers(1, 12)),
        planned_ms=START_MS + draw(st.integers(0, 5000)),
        liquidation_price=None if liquidation is None else liquidation * traded.price_tick,
    )


@st.composite
def entries(draw: st.DrawFn, of: TradeFacts) -> Held:
    """Return an entry in one or two fills, near the reference price."""
    parts = draw(st.lists(st.tuples(st.integers(1, 5000), st.integers(-20, 20)), min_size=1, max_size=2))
    step_size, tick = of.instrument.quantity_step, of.instrument.price_tick
    return Held(
        entered=sum((steps * step_size for steps, _ in parts), D(0)),
        cost=sum((steps * step_size * (of.reference_price + off * tick) for steps, off in parts), D(0)),
    )


@st.composite
def candles(draw: st.DrawFn, *, least: int = 14, most: int = 16, wildness: int = 150) -> list[tuple[int, ...]]:
    """Return candles that follow each other, with gaps between them: open, high, low and close in ticks."""
    moves = st.integers(-wildness, wildness)
    wicks = st.integers(0, wildness)
    drawn = draw(st.lists(st.tuples(moves, moves, wicks, wicks), min_size=least, max_size=most))
    found, price = [], MIDDLE
    for place, (gap, move, up, down) in enumerate(drawn):
        begin = price if place == 0 else price + gap // 4
        price = begin + move
        found.append((begin, max(begin, price) + up, min(begin, price) - down, price))
    return found


def in_prices(rows: list[tuple[int, ...]], of: TradeFacts) -> list[Prices]:
    """Return candles in ticks as the oracle reads them."""
    tick = of.instrument.price_tick
    return [
        Prices(open=row[0] * tick, high=row[1] * tick, low=row[2] * tick, close=row[3] * tick,
               close_ms=START_MS + (number + 1) * STEP_MS)
        for number, row in enumerate(rows)
    ]  # fmt: skip


def only_tightens(states: list[ExitState]) -> bool:
    """Whether no stop lies further from the market than the one before it."""
    return all(later.facts.sign * (later.stop_price - one.stop_price) >= 0 for one, later in pairwise(states))
