"""`qtctl sandbox`: start, watch, audit and disturb the local exchange."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from feature_store.terminal import help_end, run
from infra.sandbox.asking import DEFAULT_PORT, AsJson, Url, ask, asking, show
from infra.sandbox.engine import funding
from infra.sandbox.engine.spot_ledger import SPOT_FEES
from infra.sandbox.fault_command import FAULT_HELP, fault
from infra.sandbox.faults import FaultError
from infra.sandbox.intrabar import Intrabar
from infra.sandbox.market.equations import DEFAULT_EDGE
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.rules_command import RULES_HELP, rules
from infra.sandbox.script import read_script
from infra.sandbox.serve import LIQUIDATION_FEE, SPOT_BALANCE, OptionError, Options, run_until_told

DEFAULT_START = "2026-01-05T00:00:00Z"

app = App(
    name="sandbox",
    help=(
        "A local exchange on a clock of its own; it speaks Binance USD-M futures and Binance spot, and Bitfinex's"
        " derivatives under /bitfinex."
    ),
    help_format="plaintext",
    help_epilogue=asking(
        "qtctl sandbox serve",
        "qtctl sandbox status --url http://127.0.0.1:9100",
        "qtctl sandbox audit",
        "qtctl sandbox fault --op clear",
    ),
)


@app.command(
    help_epilogue=help_end(
        "qtctl sandbox serve",
        "qtctl sandbox serve --port 0 --edge 0 --seed 11  # nothing to find in it",
        "qtctl sandbox serve --replay candles.parquet --replay-symbols BTCUSDT,ETHUSDT",
        "qtctl sandbox serve --state var/sandbox  # goes on where it was stopped",
        statuses={
            0: "stopped as asked, by SIGTERM or Ctrl-C",
            1: "failed while it ran",
            2: "bad usage: an unknown option, a value, port, recording or state that cannot be used",
            130: "interrupted by Ctrl-C before it had begun",
        },
    )
)
def serve(
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    symbols: str = "20",
    seed: int = 7,
    edge: float = DEFAULT_EDGE,
    speed: float = 60.0,
    start: str = DEFAULT_START,
    history_days: int = 45,
    balance: str = "10000",
    taker_fee: str = "0.0005",
    maker_fee: str = "0.0002",
    spread_bps: str = "1",
    liquidation_fee: str = str(LIQUIDATION_FEE),
    funding_hours: str = "8",
    spot_balance: str = str(SPOT_BALANCE),
    spot_fee: str = str(SPOT_FEES.taker),
    api_key: Annotated[str, Parameter(env_var="QT_API_KEY")] = "sandbox-key",
    api_secret: Annotated[str, Parameter(env_var="QT_API_SECRET")] = "sandbox-secret",  # noqa: S107 - a toy's key.
    state: Path | None = None,
    ready_file: Path | None = None,
    replay: Path | None = None,
    replay_symbols: str = "",
    replay_start: str | None = None,
    replay_timeframe: str | None = None,
    replay_exchange: str | None = None,
    lockstep: Annotated[bool, Parameter(negative=())] = False,
    faults: Path | None = None,
    intrabar: str | None = None,
) -> None:
    """Run the exchange until it is told to stop; one JSON line on stdout says where it listens.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one.
    symbols
        How many synthetic instruments (20), or their names (BTCUSDT,ETHUSDT).
    seed
        Seed of the synthetic market, of funding rates and of injected chance.
    edge
        Strength of the predictable component: the correlation between the hidden truth and the next hour's return.
    speed
        How many venue seconds pass in a wall second.
    start
        Venue time at which the synthetic market opens to clients.
    history_days
        Days of candles before the start.
    balance
        Opening balance in USDT.
    taker_fee
        Taker fee per notional.
    maker_fee
        Maker fee per notional.
    spread_bps
        Spread between bid and ask in basis points.
    liquidation_fee
        What a liquidation costs per notional beyond its fills, as far as there is money left.
    funding_hours
        Hours between settlements of funding, 1, 4 or 8; of some symbols others: 8,SOLUSDT=4,XRPUSDT=1.
    spot_balance
        Opening balance of the spot account in USDT, which is separate.
    spot_fee
        Maker and taker fee on spot, as a share of what is received.
    api_key
        The key clients must send.
    api_secret
        The secret clients must sign with.
    state
        Folder in which account and time are kept, to go on from when started again; by default nothing is kept.
    ready_file
        File that receives the line of stdout once the venue answers; by default none.
    replay
        Parquet or CSV file, or a folder of them, with recorded candles to trade; by default a synthetic market.
    replay_symbols
        Names of the recorded instruments to use; all when empty.
    replay_start
        Venue time inside the recording at which the market opens to clients; by default after --history-days.
    replay_timeframe
        Timeframe to use when the recording has several; by default 5m when it has it, else the finest.
    replay_exchange
        Exchange to use when the recording has several; by default futures before spot.
    lockstep
        Stand still after each closed candle and each fill until clients are silent, for comparisons; by default time
        waits for nobody.
    faults
        Script of faults to follow from the start, as `qtctl sandbox fault --file` takes it; by default none.
    intrabar
        What a recorded candle reaches first that could end a position either way; by default detail, as recorded
        minutes say, else what hurts; else adverse, optimistic, or path, the extreme nearer to the open. The audit says
        how much is at stake.
    """
    names, count = _names(symbols)
    options = Options(
        host=host,
        port=port,
        symbols=names,
        symbol_count=count,
        seed=_at_least(seed, 0, "--seed"),
        edge=_edge(edge),
        speed=_speed(speed),
        start_ms=_time_ms(start, "--start"),
        history_days=_at_least(history_days, 1, "--history-days"),
        balance=_amount(balance, "--balance"),
        taker_fee=_amount(taker_fee, "--taker-fee"),
        maker_fee=_amount(maker_fee, "--maker-fee"),
        spread_bps=_amount(spread_bps, "--spread-bps"),
        liquidation_fee=_amount(liquidation_fee, "--liquidation-fee"),
        funding_hours=_funding_hours(funding_hours),
        spot_balance=_amount(spot_balance, "--spot-balance"),
        spot_fee=_amount(spot_fee, "--spot-fee"),
        credentials=Credentials(api_key, api_secret),
        state_folder=state,
        ready_file=ready_file,
        replay=replay,
        replay_symbols=tuple(one.strip().upper() for one in replay_symbols.split(",") if one.strip()),
        replay_start_ms=None if replay_start is None else _time_ms(replay_start, "--replay-start"),
        replay_timeframe=replay_timeframe,
        replay_exchange=replay_exchange,
        lockstep=lockstep,
        faults=_script(faults),
        intrabar=_intrabar(intrabar, replayed=replay is not None),
    )
    run_until_told(options)


@app.command(
    help_epilogue=asking(
        "qtctl sandbox status",
        "qtctl sandbox status --url http://127.0.0.1:9100 --json | jq .now_ms",
    )
)
def status(*, url: Url = None, json: AsJson = False) -> None:
    """Print the venue's time, speed, market and load as JSON."""
    show(ask(url, "/sandbox/status"), compact=json)


@app.command(
    help_epilogue=asking(
        "qtctl sandbox audit",
        "qtctl sandbox audit --json | jq .unprotected",
    )
)
def audit(*, url: Url = None, json: AsJson = False) -> None:
    """Print what an auditor wants to know: fills, round trips, unprotected stretches, duplicates."""
    show(ask(url, "/sandbox/audit"), compact=json)


@app.command(
    help_epilogue=asking(
        "qtctl sandbox truth --url http://127.0.0.1:9100",
    )
)
def truth(*, url: Url = None, json: AsJson = False) -> None:
    """Print how much of the market can be predicted at all."""
    show(ask(url, "/sandbox/truth"), compact=json)


app.command(fault, help_epilogue=FAULT_HELP)


app.command(rules, help_epilogue=RULES_HELP)


def main() -> None:
    """Entry point of `python -m infra.sandbox`."""
    sys.exit(run(app, sys.argv[1:]))


def _names(raw: str) -> tuple[tuple[str, ...], int]:
    if raw.isdigit():
        count = int(raw)
        if not 1 <= count <= 600:
            raise OptionError(f"--symbols expects 1 to 600 instruments, was {raw}.")
        return (), count
    names = tuple(one.strip().upper() for one in raw.split(",") if one.strip())
    if not names:
        raise OptionError("--symbols expects a count or names such as BTCUSDT,ETHUSDT, was empty.")
    return names, len(names)


def _script(file: Path | None) -> tuple[dict[str, Any], ...]:
    try:
        return () if file is None else tuple(read_script(file))
    except FaultError as error:
        raise OptionError(f"--faults: {error}") from None


def _time_ms(raw: str, option: str) -> int:
    try:
        at = datetime.fromisoformat(raw)
    except ValueError:
        raise OptionError(f"{option} expects a UTC time such as 2026-01-05T00:00:00Z, was '{raw}'.") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return int(at.timestamp()) * 1000


def _amount(raw: str, option: str) -> Decimal:
    try:
        amount = Decimal(raw)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise OptionError(f"{option} expects a number of at least 0, was '{raw}'.")
    return amount


def _funding_hours(raw: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in raw.split(","):
        symbol, _, hours = part.strip().rpartition("=")
        if not hours.isdigit() or int(hours) not in funding.HOURS:
            raise OptionError(f"--funding-hours expects 1, 4 or 8, or such as 8,SOLUSDT=4,XRPUSDT=1, was '{raw}'.")
        found[symbol.upper()] = int(hours)
    return found


def _at_least(value: int, minimum: int, option: str) -> int:
    if value < minimum:
        raise OptionError(f"{option} expects at least {minimum}, was {value}.")
    return value


def _speed(value: float) -> float:
    if not 0.01 <= value <= 100_000:
        raise OptionError(f"--speed expects 0.01 to 100000, was {value:g}.")
    return value


def _intrabar(raw: str | None, *, replayed: bool) -> Intrabar:
    if raw is None:
        return Intrabar.DETAIL if replayed else Intrabar.PATH
    try:
        return Intrabar(raw)
    except ValueError:
        raise OptionError(f"--intrabar expects {', '.join(Intrabar)}, was '{raw}'.") from None


def _edge(value: float) -> float:
    if not 0.0 <= value <= 0.6:
        raise OptionError(f"--edge expects 0 to 0.6, was {value:g}.")
    return value
