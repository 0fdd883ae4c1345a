"""From options to a running venue; every bad option is one sentence."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from aiohttp import web

from feature_store import clock as wall
from feature_store.errors import BadInputError
from infra.sandbox.clock import VirtualClock
from infra.sandbox.control import perform
from infra.sandbox.disturbing import resume
from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.checks import PRICE_BAND
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Clearance, Fees
from infra.sandbox.engine.recorded_book import RecordedBook
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_ledger import SPOT_FEES
from infra.sandbox.engine.spot_state import new_spot_state
from infra.sandbox.engine.state import new_state
from infra.sandbox.faults import FaultError
from infra.sandbox.intrabar import Ambiguity, Intrabar
from infra.sandbox.market.series import MINUTE_MS, TICK_MS, Market
from infra.sandbox.market.synthetic import SyntheticMarket
from infra.sandbox.market.timetable import TimetabledMarket
from infra.sandbox.persist import Identity, Saved, StateError, load
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.server import Sandbox, application
from infra.sandbox.venue import Venue

LIQUIDATION_FEE = Decimal("0.0125")
SPOT_BALANCE = Decimal(10_000)

if TYPE_CHECKING:
    from infra.sandbox.market.recording import Recording


class OptionError(BadInputError):
    """An option cannot be used; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a venue is started."""

    host: str
    port: int
    symbols: tuple[str, ...]
    symbol_count: int
    seed: int
    edge: float
    speed: float
    start_ms: int
    history_days: int
    balance: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    spread_bps: Decimal
    credentials: Credentials
    state_folder: Path | None = None
    ready_file: Path | None = None
    replay: Path | None = None
    replay_symbols: tuple[str, ...] = ()
    replay_start_ms: int | None = None
    replay_timeframe: str | None = None
    replay_exchange: str | None = None
    lockstep: bool = False
    # The steps of a fault script, as the control plane takes them.
    faults: tuple[dict[str, Any], ...] = ()
    intrabar: Intrabar = Intrabar.PATH
    liquidation_fee: Decimal = LIQUIDATION_FEE
    # Hours between settlements of funding where they are not eight; of every symbol where none is named.
    funding_hours: Mapping[str, int] = field(default_factory=dict)
    # What the spot account begins with, in the quote asset, and what it pays of what it receives.
    spot_balance: Decimal = SPOT_BALANCE
    spot_fee: Decimal = SPOT_FEES.taker


def build_market(options: Options) -> Market:
    """
    Make the market the options ask for.

    Raises:
        OptionError: The options contradict each other or the recording cannot be used.
    """
    if options.replay is not None:
        # Reading recordings needs pyarrow, which the light environment does not have.
        from infra.sandbox.market.replay import (  # noqa: PLC0415
            RecordingError,
            ReplayMarket,
            read_flows,
            read_recording,
        )

        try:
            recording = read_recording(
                options.replay,
                symbols=options.replay_symbols or options.symbols,
                timeframe=options.replay_timeframe,
                exchange=options.replay_exchange,
            )
            return ReplayMarket(
                recording,
                start_ms=options.replay_start_ms,
                history_days=options.history_days,
                minutes=_minutes(options, recording),
                flows=read_flows(options.replay, recording),
            )
        except RecordingError as error:
            raise OptionError(str(error)) from error
    return SyntheticMarket(
        symbols=options.symbol_count,
        seed=options.seed,
        edge=options.edge,
        start_ms=options.start_ms,
        history_days=options.history_days,
        names=options.symbols,
    )


def _minutes(options: Options, recording: Recording) -> Recording | None:
    """Return the minutes inside a recording's candles, where they are asked for and there are any."""
    from infra.sandbox.market.replay import RecordingError, read_recording  # noqa: PLC0415 - see above

    if options.intrabar is not Intrabar.DETAIL or recording.timeframe_ms == MINUTE_MS or options.replay is None:
        return None
    try:
        minutes = read_recording(options.replay, timeframe="1m", exchange=options.replay_exchange)
    except RecordingError:
        return None
    return minutes


def build(options: Options) -> Sandbox:
    """
    Make the venue, with the account it had when it was last saved.

    Raises:
        OptionError: An option or the saved state cannot be used.
    """
    try:
        market = build_market(options)
    except ValueError as error:
        raise OptionError(str(error)) from error
    identity = Identity(
        market=market.kind,
        seed=options.seed,
        edge=market.edge,
        symbols=tuple(one.symbol for one in market.instruments),
        first_ms=market.first_ms,
    )
    saved = None
    if options.state_folder is not None:
        try:
            saved = load(options.state_folder, identity)
        except StateError as error:
            raise OptionError(str(error)) from error
    state = saved.engine if saved is not None else new_state(options.balance)
    now_ms = saved.now_ms if saved is not None else market.start_ms
    market = TimetabledMarket(market, state, funding_hours=_funding_hours(options, identity.symbols))
    has_flow = _has_flow(market)
    exchange = Exchange(
        market.instruments,
        state,
        fees=Fees(maker=options.maker_fee, taker=options.taker_fee),
        book=(RecordedBook if has_flow else BookModel)(spread_bps=options.spread_bps),
        clearance=Clearance(options.liquidation_fee, insured=True),
    )
    state.rules = replace(state.rules, seed=options.seed, take_bound=PRICE_BAND)
    if saved is None and has_flow:
        # Where it is known who waited before us, nobody is served before them.
        state.rules = replace(state.rules, queue=True)
    spot = SpotExchange(
        market.instruments,
        (None if saved is None else saved.spot) or new_spot_state(options.spot_balance),
        fees=Fees(maker=options.spot_fee, taker=options.spot_fee),
        book=exchange.book,
    )
    spot.state.rules = state.rules
    venue = Venue(
        market, exchange, options.seed, ambiguity=_ambiguity(market, options.intrabar), spot_account=spot
    )  # fmt: skip
    venue.begin(now_ms - now_ms % TICK_MS)
    if saved is not None:
        venue.auditor.finished.extend(saved.unprotected)
        venue.arrivals.restore(saved.in_flight)
    clock = VirtualClock(venue.ticked_ms, wall.monotonic(), options.speed)
    venue.auditor.observe(exchange, now_ms=venue.ticked_ms, wall_ms=Sandbox.monotonic_ms())
    sandbox = Sandbox(
        venue, clock, credentials=options.credentials, state_folder=options.state_folder, identity=identity,
        lockstep=options.lockstep,
    )  # fmt: skip
    if saved is not None:
        sandbox.bitfinex.doorkeeper.nonces.update(saved.nonces)
        _resume(sandbox, saved)
    return sandbox


def _resume(sandbox: Sandbox, saved: Saved) -> None:
    try:
        resume(sandbox, saved.endings, wall.monotonic())
    except FaultError as error:
        raise OptionError(f"The state in {sandbox.state_folder} was damaged; move it away: {error}") from error


def _ambiguity(market: TimetabledMarket, mode: Intrabar) -> Ambiguity | None:
    if market.kind == "replay":
        from infra.sandbox.market.replay import ReplayMarket  # noqa: PLC0415 - see above

        assert isinstance(market.source, ReplayMarket)
        return Ambiguity(market.source, mode, bent=market.redraw)
    if mode is not Intrabar.PATH:
        raise OptionError(f"--intrabar {mode} chooses inside recorded candles; name some with --replay.")
    return None


def _has_flow(market: TimetabledMarket) -> bool:
    places = range(len(market.instruments))
    return any(market.tape(place) is not None or market.snapshots(place) is not None for place in places)


def _funding_hours(options: Options, symbols: tuple[str, ...]) -> dict[str, int]:
    unknown = sorted(set(options.funding_hours) - {"", *symbols})
    if unknown:
        raise OptionError(f"--funding-hours names {unknown[0]}, which this market does not have.")
    usual = options.funding_hours.get("", 8)
    return dict.fromkeys(symbols, usual) | {one: h for one, h in options.funding_hours.items() if one}


def run_until_told(options: Options) -> None:
    """
    Run a venue until SIGTERM or SIGINT.

    Raises:
        OptionError: It cannot be started as asked.
    """
    # A tenth of what an order costs goes into the loop around it; this one is in C.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options))


async def serve(options: Options) -> None:
    """
    Run a venue until SIGTERM or SIGINT, on the loop that runs.

    Raises:
        OptionError: It cannot be started as asked.
    """
    sandbox = build(options)
    if options.faults:
        try:
            await perform(sandbox, {"op": "script", "steps": list(options.faults)})
        except FaultError as error:
            raise OptionError(f"--faults: {error}") from error
    runner = web.AppRunner(application(sandbox), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise OptionError(
                f"Port {options.port} on {options.host} cannot be used ({error.strerror or error}); "
                "choose another with --port, or 0 for a free one."
            ) from error
        _announce(runner, options)
        _leave_alone_what_stays()
        await _until_told()
    finally:
        await runner.cleanup()


def _leave_alone_what_stays() -> None:
    # The market and an account's history only grow: looking through them for cycles would delay orders ever longer.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _announce(runner: web.AppRunner, options: Options) -> None:
    host, port = runner.addresses[0][:2]
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - compared, not bound.
    line = msgspec.json.encode({"url": f"http://{shown}:{port}", "ws": f"ws://{shown}:{port}", "pid": os.getpid()})
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()
    if options.ready_file is not None:
        options.ready_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = options.ready_file.with_name(f".{options.ready_file.name}.{os.getpid()}")
        temporary.write_bytes(line + b"\n")
        temporary.replace(options.ready_file)


async def _until_told() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
