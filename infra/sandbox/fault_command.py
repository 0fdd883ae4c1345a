"""`qtctl sandbox fault`: everything that a venue does to its clients, on demand and by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from infra.sandbox.asking import AsJson, Url, ask, asking, show
from infra.sandbox.faults import FaultError
from infra.sandbox.script import read_script
from infra.sandbox.serve import OptionError

FAULT_HELP = asking(
    "qtctl sandbox fault --path /fapi/v1/order --action exec_then_drop",
    "qtctl sandbox fault --path /fapi/v1/time --status 429 --times 3 --retry-after 2",
    "qtctl sandbox fault --op preset --name black-hole",
    "qtctl sandbox fault --op skew --ms 5000",
    "qtctl sandbox fault --op advance --for-s 3600",
    "qtctl sandbox fault --op snapshot --name before",
    "qtctl sandbox fault --file night.toml  # [[step]] at = '12:00', for = 30, op = 'freeze_ws'",
    "qtctl sandbox fault --op clear",
)


def fault(
    *,
    url: Url = None,
    op: str = "fault",
    path: str = "",
    method: str = "",
    action: str = "status",
    times: int | None = None,
    p: float | None = None,
    secs: float | None = None,
    status: int = 503,
    code: int | None = None,
    body: str | None = None,
    retry_after: float | None = None,
    spare_reduce_only: Annotated[bool, Parameter(negative=())] = False,
    ms: int = 0,
    on: bool = True,
    hard: bool = False,
    name: str = "",
    symbol: str = "",
    side: str = "",
    quantity: float = 0.0,
    asset: str = "",
    factor: float = 1.0,
    also_mark: Annotated[bool, Parameter(negative=())] = False,
    frac: float = 0.5,
    position_side: str = "BOTH",
    share: float = 1.0,
    for_s: float | None = None,
    after_s: float | None = None,
    frame: str = "",
    to: str = "all",
    dup: Annotated[bool, Parameter(negative=())] = False,
    reverse: Annotated[bool, Parameter(negative=())] = False,
    drop_user: Annotated[bool, Parameter(negative=())] = False,
    freeze_market: Annotated[bool, Parameter(negative=())] = False,
    handshake: int = 0,
    silent: Annotated[bool, Parameter(negative=())] = False,
    minutes: float | None = None,
    venue_time: Annotated[bool, Parameter(negative=())] = False,
    weight: int | None = None,
    orders_10s: int | None = None,
    orders_1m: int | None = None,
    streams: int | None = None,
    messages: int | None = None,
    until_ms: int | None = None,
    seed: int | None = None,
    strikes: int | None = None,
    ban_secs: float | None = None,
    file: Path | None = None,
    json: AsJson = False,
) -> None:
    """Inject a fault, plan many from a file, undo all with `--op clear`, or lead the time of a venue in lockstep.

    What --op may be: fault (requests fail), preset (what has a --name), stale_reads, partial, price, trade, deposit,
    skew, limits, hold (429, then a ban), kill_ws, freeze_ws, wsfault, black_hole, push, expire_key,
    key_life, legacy, log, clear, lead, stand_still (time does) or go_on. Once `lead` was said, a venue in lockstep
    stands still after each closed candle and each fill until `go_on`. Further `liquidation` and `adl`, which close
    positions as the venue does; `halt` of a symbol and `maintenance` of all, in which nothing trades and candles stop;
    `delist`, which settles a symbol; `restrict`, which lets it only be reduced; and `mark`, which pulls mark prices
    away from the last ones. `--no-on` and `clear` end all of these but a delisting. `advance` lets the time to a moment
    pass at once; `snapshot` keeps the whole venue under a --name and `restore` makes it that again; `seed` lets chance
    draw the same faults again.

    Parameters
    ----------
    op
        What is done, one of the words above.
    path
        Part of the path of the requests that fail.
    method
        HTTP method of the requests that fail; any when empty.
    action
        status, hang, drop, delay, exec_then_drop, exec_then_hang, exec_then_status, exec_then_truncate or late_exec.
    times
        How many requests, handshakes or partial fills; by default one, or all where a probability is given.
    p
        Probability with which a request fails; by default 1.
    secs
        Seconds: by default 30 of a hang, a delay or a late execution, 3 of a lag, 5 of a hold, 2 of a refused
        handshake's Retry-After.
    status
        HTTP status of the answer.
    code
        The venue's own code in the answer; by default one that goes with the status.
    body
        The answer as it is, a page of HTML for example; by default code and message in JSON.
    retry_after
        Seconds in the answer's Retry-After; by default it has none.
    spare_reduce_only
        Let orders through that can only make a position smaller.
    ms
        Milliseconds of clock skew.
    on
        Whether what is named is switched on.
    hard
        Cut sockets without a farewell.
    name
        Which preset, a wrong one is answered with all there are; or which snapshot.
    symbol
        The symbol that it is about; by default all, for price, mark and liquidation, else it has to be named.
        With `freeze_ws`, only the sockets fall silent that carry it.
    side
        BUY or SELL, of a trade by somebody else's hand.
    quantity
        How much of it; of a deposit to the spot account, below zero where it is taken away.
    asset
        Which asset is deposited: USDT, or the first part of a symbol.
    factor
        The price of one trade, or the mark price, as a multiple of the last; by default 1.
    also_mark
        Let the mark price follow that one trade; by default it stays where it was.
    frac
        The share that takers get.
    position_side
        Which position is deleveraged: BOTH, or LONG or SHORT in hedge mode.
    share
        Which part of it, above 0 and at most 1.
    for_s
        Venue seconds that a halt or maintenance lasts, by default until it is switched off; or that `advance` leaps.
    after_s
        Venue seconds until a symbol is delisted; by default at the next price.
    frame
        The frame to push as it is.
    to
        Who gets it: all, market or user.
    dup
        Send each event twice.
    reverse
        Let each second event overtake the one before.
    drop_user
        Send no event of the account.
    freeze_market
        Send no market data.
    handshake
        The status with which handshakes are refused; 0 refuses none.
    silent
        End the listen key without a word.
    minutes
        How long a listen key lives; by default an hour.
    venue_time
        Count that by the venue's clock, not by the wall.
    weight
        Request weight that is allowed in a minute; by default 2400.
    orders_10s
        Orders that are allowed in ten seconds; by default 300.
    orders_1m
        Orders that are allowed in a minute; by default 1200.
    streams
        Streams that one WebSocket carries; by default 1024.
    messages
        Messages that a client may send a WebSocket of streams in a second before it is cut off; by default 10.
    until_ms
        The venue time that `advance` leads to, in milliseconds since 1970 UTC; by default --for-s counts.
    seed
        What the chance of faults is drawn from; by default the venue's own seed.
    strikes
        Requests while told to wait that lead to a ban; by default 3.
    ban_secs
        Seconds of the first ban; by default 120.
    file
        Script to follow, by default none: TOML ([[step]]) or JSON, each step with `at` (venue time) or `after`
        (seconds), perhaps `for` (seconds), and what else stands here.
    json
        Print compact JSON, on one line.
    """
    if file is not None:
        try:
            asked: dict[str, Any] = {"op": "script", "steps": read_script(file)}
        except FaultError as error:
            raise OptionError(f"--file: {error}") from None
        show(ask(url, "/sandbox/ctl", asked), compact=json)
        return
    asked = {
        "op": op, "path": path, "method": method, "action": action, "times": times, "p": p, "secs": secs,
        "status": status, "code": code, "body": body, "retry_after": retry_after,
        "spare_reduce_only": spare_reduce_only, "ms": ms, "on": on, "hard": hard, "name": name, "symbol": symbol,
        "side": side, "quantity": quantity, "asset": asset, "factor": factor, "also_mark": also_mark, "frac": frac,
        "position_side": position_side, "share": share, "for_s": for_s, "after_s": after_s, "frame": frame, "to": to,
        "dup": dup, "reverse": reverse, "drop_user": drop_user, "freeze_market": freeze_market,
        "handshake": handshake, "silent": silent, "minutes": minutes, "venue_time": venue_time, "weight": weight,
        "orders_10s": orders_10s, "orders_1m": orders_1m, "streams": streams,
        "messages": messages, "until_ms": until_ms, "seed": seed,
        "strikes": strikes, "ban_secs": ban_secs,
    }  # fmt: skip
    show(ask(url, "/sandbox/ctl", asked), compact=json)
