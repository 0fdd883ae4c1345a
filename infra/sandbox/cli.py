"""`qtctl sandbox`: start, watch, audit and disturb the local exchange."""

from __future__ import annotations

import asyncio
import json as json_codec
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from feature_store.errors import QuantumError
from feature_store.terminal import help_end, run
from infra.sandbox.market.synthetic import DEFAULT_EDGE
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import OptionError, Options
from infra.sandbox.serve import serve as run_server
from infra.sandbox.stack_note import home_from_environment, stack_sandbox

DEFAULT_START = "2026-01-05T00:00:00Z"
DEFAULT_PORT = 9100

_Url = Annotated[
    str | None,
    Parameter(
        env_var="QT_VENUE_URL",
        help="Where the venue listens; by default where the stack of QUANTUM_HOME runs its exchange, else "
        f"http://127.0.0.1:{DEFAULT_PORT}.",
    ),
]
_AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print compact JSON, on one line.")]


class NoAnswerError(QuantumError):
    """No sandbox answers, or it refuses what was asked of it."""


def _asking(*examples: str) -> str:
    statuses = {0: "the venue answered", 1: "no venue answers, or it refuses; the message says which"}
    return help_end(*examples, statuses=statuses, as_json=True)


app = App(
    name="sandbox",
    help="A local exchange that speaks Binance USD-M futures, on a clock of its own.",
    help_format="plaintext",
    help_epilogue=_asking(
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
    api_key: Annotated[str, Parameter(env_var="QT_API_KEY")] = "sandbox-key",
    api_secret: Annotated[str, Parameter(env_var="QT_API_SECRET")] = "sandbox-secret",  # noqa: S107 - a toy's key.
    state: Path | None = None,
    ready_file: Path | None = None,
    replay: Path | None = None,
    replay_symbols: str = "",
    replay_start: str | None = None,
    replay_timeframe: str | None = None,
    replay_exchange: str | None = None,
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
        credentials=Credentials(api_key, api_secret),
        state_folder=state,
        ready_file=ready_file,
        replay=replay,
        replay_symbols=tuple(one.strip().upper() for one in replay_symbols.split(",") if one.strip()),
        replay_start_ms=None if replay_start is None else _time_ms(replay_start, "--replay-start"),
        replay_timeframe=replay_timeframe,
        replay_exchange=replay_exchange,
    )
    asyncio.run(run_server(options))


@app.command(
    help_epilogue=_asking(
        "qtctl sandbox status",
        "qtctl sandbox status --url http://127.0.0.1:9100 --json | jq .now_ms",
    )
)
def status(*, url: _Url = None, json: _AsJson = False) -> None:
    """Print the venue's time, speed, market and load as JSON."""
    _print(_ask(url, "/sandbox/status"), compact=json)


@app.command(
    help_epilogue=_asking(
        "qtctl sandbox audit",
        "qtctl sandbox audit --json | jq .unprotected",
    )
)
def audit(*, url: _Url = None, json: _AsJson = False) -> None:
    """Print what an auditor wants to know: fills, round trips, unprotected stretches, duplicates."""
    _print(_ask(url, "/sandbox/audit"), compact=json)


@app.command(
    help_epilogue=_asking(
        "qtctl sandbox truth --url http://127.0.0.1:9100",
    )
)
def truth(*, url: _Url = None, json: _AsJson = False) -> None:
    """Print how much of the market can be predicted at all."""
    _print(_ask(url, "/sandbox/truth"), compact=json)


@app.command(
    help_epilogue=_asking(
        "qtctl sandbox fault --path /fapi/v1/order --action exec_then_drop",
        "qtctl sandbox fault --path /fapi/v1/time --status 429 --times 3",
        "qtctl sandbox fault --op skew --ms 5000",
        "qtctl sandbox fault --op clear",
    )
)
def fault(
    *,
    url: _Url = None,
    op: str = "fault",
    path: str = "",
    method: str = "",
    action: str = "status",
    times: int | None = None,
    p: float | None = None,
    secs: float = 30.0,
    status: int = 503,
    ms: int = 0,
    on: bool = True,
    hard: bool = False,
    json: _AsJson = False,
) -> None:
    """Inject a fault, or undo all with `--op clear`.

    Parameters
    ----------
    op
        fault, kill_ws, freeze_ws, skew, expire_key, legacy, log or clear.
    path
        Part of the path of the requests that fail.
    method
        HTTP method of the requests that fail; any when empty.
    action
        status, hang, drop, delay, exec_then_drop, exec_then_hang, exec_then_status or late_exec.
    times
        How many requests fail; by default one, or all where a probability is given.
    p
        Probability with which a request fails; by default 1.
    secs
        Seconds of a hang, a delay or a late execution.
    status
        HTTP status of the answer.
    ms
        Milliseconds of clock skew.
    on
        Whether a freeze or the log is switched on.
    hard
        Cut sockets without a farewell.
    json
        Print compact JSON, on one line.
    """
    body = {
        "op": op, "path": path, "method": method, "action": action, "times": times, "p": p, "secs": secs,
        "status": status, "ms": ms, "on": on, "hard": hard,
    }  # fmt: skip
    _print(_ask(url, "/sandbox/ctl", body), compact=json)


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


def _at_least(value: int, minimum: int, option: str) -> int:
    if value < minimum:
        raise OptionError(f"{option} expects at least {minimum}, was {value}.")
    return value


def _speed(value: float) -> float:
    if not 0.01 <= value <= 100_000:
        raise OptionError(f"--speed expects 0.01 to 100000, was {value:g}.")
    return value


def _edge(value: float) -> float:
    if not 0.0 <= value <= 0.6:
        raise OptionError(f"--edge expects 0 to 0.6, was {value:g}.")
    return value


def _ask(named: str | None, path: str, body: dict[str, Any] | None = None) -> Any:
    url = named or stack_sandbox(home_from_environment()) or f"http://127.0.0.1:{DEFAULT_PORT}"
    if not url.startswith(("http://", "https://")):
        raise OptionError(f"--url expects http://HOST:PORT, was '{url}'.")
    data = None if body is None else json_codec.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data=data)  # noqa: S310 - the scheme is checked above.
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json_codec.load(answer)
    except urllib.error.HTTPError as error:
        raise NoAnswerError(f"The venue refused: {error.read().decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise NoAnswerError(
            f"No sandbox answers at {url} ({error}); start one with `qtctl sandbox serve`, or name another with --url."
        ) from None


def _print(answer: Any, *, compact: bool = False) -> None:
    sys.stdout.write(json_codec.dumps(answer, indent=None if compact else 2) + "\n")
