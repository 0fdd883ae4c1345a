"""The sandbox as a process: its time, its state, its faults and its errors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import aiohttp
import ccxt
import ccxt.async_support as ccxt_rest
import pytest

from tests.sandbox_support import ROOT, SandboxFailedError, ccxt_options, point, running_sandbox, start_sandbox

COIN = "SOL/USDT:USDT"
SMALL = {"symbols": 3, "history_days": 2}


def client(url):
    return point(ccxt_rest.binanceusdm(ccxt_options()), url)


async def collect(sandbox, streams, *, until, path="/market/stream", seconds=200):
    """Read frames until the predicate over them holds."""
    frames = []
    async with aiohttp.ClientSession() as session, session.ws_connect(sandbox.ws_url + path) as socket:
        await socket.send_json({"method": "SUBSCRIBE", "params": streams, "id": 1})
        async with asyncio.timeout(seconds):
            while not until(frames):
                frame = await socket.receive()
                if frame.type is not aiohttp.WSMsgType.TEXT:
                    break
                frames.append(json.loads(frame.data))
    return frames


@pytest.mark.parametrize("speed", [60, 6_000])
async def test_every_candle_closes_exactly_once_and_in_order(speed):
    """However fast time runs, each symbol's candles close once, in order, with no gap, and agree with REST."""
    async with running_sandbox(**SMALL, speed=speed) as sandbox:
        symbols = (await sandbox.get("/sandbox/status"))["symbols"]
        wanted = 4 if speed == 60 else 60

        def closed(frames):
            return [f["data"]["k"] for f in frames if "data" in f and f["data"]["k"]["x"]]

        frames = await collect(
            sandbox,
            [f"{one.lower()}@kline_1m" for one in symbols],
            until=lambda frames: len(closed(frames)) >= wanted * len(symbols),
        )
        for symbol in symbols:
            candles = [one for one in closed(frames) if one["s"] == symbol]
            opens = [one["t"] for one in candles]
            assert opens == list(range(opens[0], opens[0] + len(opens) * 60_000, 60_000))
            rest = await sandbox.get(
                f"/fapi/v1/klines?symbol={symbol}&interval=1m&startTime={opens[0]}&limit={len(opens)}"
            )
            told = [[c["t"], *(float(c[key]) for key in "ohlcv")] for c in candles]
            assert told == [[row[0], *map(float, row[1:6])] for row in rest]


async def test_account_and_time_survive_sigterm_and_sigkill(tmp_path):
    """A venue that is started again goes on with the same account, from the time it had saved."""
    options = {**SMALL, "state": tmp_path / "venue"}
    sandbox = await start_sandbox(**options)
    exchange = client(sandbox.url)
    await exchange.create_order(COIN, "market", "buy", 3, None, {"clientOrderId": "entry"})
    await exchange.create_order(COIN, "market", "sell", 3, None, {"stopLossPrice": 20, "reduceOnly": True})
    await exchange.close()
    before = await sandbox.get("/sandbox/audit")
    assert await sandbox.stop() == 0

    for ending in (signal.SIGKILL, signal.SIGTERM):
        sandbox = await start_sandbox(**options)
        after = await sandbox.get("/sandbox/audit")
        assert after["wallet"] == before["wallet"]
        assert after["open_positions"][0]["quantity"] == "3"
        assert after["open_positions"][0]["protected"]
        assert after["open_algo_orders"] == 1
        status = await sandbox.get("/sandbox/status")
        assert before["now_ms"] - 60_000 < status["now_ms"] < before["now_ms"] + 3_600_000
        await asyncio.sleep(0.2)
        os.kill(sandbox.pid, ending)
        await sandbox.process.wait()

    with pytest.raises(SandboxFailedError, match="belongs to another market"):
        await start_sandbox(**options, seed=8)
    (tmp_path / "venue" / "venue.json").write_text('{"identity":')
    with pytest.raises(SandboxFailedError, match="cannot be read"):
        await start_sandbox(**options)


async def test_faults_hit_as_described():
    """An order that was executed but not answered is there when asked for; a plain failure left nothing."""
    async with running_sandbox(**SMALL) as sandbox:
        exchange = client(sandbox.url)
        try:
            await sandbox.ctl(op="fault", path="/fapi/v1/order", method="POST", action="exec_then_drop", times=1)
            with pytest.raises(ccxt.NetworkError):
                await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "lost-answer"})
            found = await exchange.fetch_order(None, COIN, {"clientOrderId": "lost-answer"})
            assert found["status"] == "closed"

            await sandbox.ctl(op="fault", path="/fapi/v1/order", method="POST", action="status", status=503)
            with pytest.raises(ccxt.OperationFailed, match="-1000"):
                await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "never"})
            with pytest.raises(ccxt.OrderNotFound):
                await exchange.fetch_order(None, COIN, {"clientOrderId": "never"})

            await sandbox.ctl(op="skew", ms=3_600_000_000)
            assert (await exchange.fetch_time()) - (await sandbox.get("/sandbox/status"))["now_ms"] > 3_500_000_000
            await sandbox.ctl(op="clear")
            answer = await sandbox.ctl(op="fault", action="explode")
            assert "expected one of" in answer["error"]
        finally:
            await exchange.close()


async def test_sockets_can_be_killed_and_keys_expire():
    """kill_ws ends every socket; expire_key sends listenKeyExpired, after which the key is unknown (-1125)."""
    async with running_sandbox(**SMALL) as sandbox, aiohttp.ClientSession() as session:
        key_url, headers = sandbox.url + "/fapi/v1/listenKey", {"X-MBX-APIKEY": "sandbox-key"}
        async with session.post(key_url, headers=headers) as answer:
            key = (await answer.json())["listenKey"]
        async with session.post(key_url, headers=headers) as answer:
            assert (await answer.json())["listenKey"] == key
        async with session.ws_connect(f"{sandbox.ws_url}/private/ws?listenKey={key}") as socket:
            await sandbox.ctl(op="expire_key")
            assert (await socket.receive_json(timeout=60))["e"] == "listenKeyExpired"
            async with session.put(key_url, headers=headers) as answer:
                assert (await answer.json())["code"] == -1125
            assert (await sandbox.ctl(op="kill_ws"))["killed"] == 1
            assert (await socket.receive(timeout=60)).type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/ws/solusdt@kline_1m", None),
        ("/market/ws/1", "solusdt@kline_1m"),
        ("/public/stream?streams=solusdt@bookTicker", None),
        ("/stream", "!miniTicker@arr"),
        ("/ws", "!markPrice@arr@1s"),
    ],
)
async def test_every_socket_path_serves(path, stream):
    """Single streams, combined streams and subscriptions work on all the paths clients use."""
    async with (
        running_sandbox(symbols=3, history_days=1) as sandbox,
        aiohttp.ClientSession() as session,
        session.ws_connect(sandbox.ws_url + path) as socket,
    ):
        if stream is not None:
            await socket.send_json({"method": "SUBSCRIBE", "params": [stream], "id": 7})
            assert await socket.receive_json(timeout=60) == {"result": None, "id": 7}
        frame = await socket.receive_json(timeout=60)
        assert ("stream" in frame) == ("/stream" in path)
        await socket.send_str("no json")
        async with asyncio.timeout(60):
            while "error" not in (frame := await socket.receive_json()):
                assert frame


async def test_the_page_shows_what_is_there():
    """A person sees time, prices and positions on a page that loads nothing from elsewhere."""
    async with running_sandbox(**SMALL) as sandbox, aiohttp.ClientSession() as session:
        exchange = client(sandbox.url)
        await exchange.create_order(COIN, "market", "buy", 2)
        await exchange.close()
        async with session.get(sandbox.url + "/") as answer:
            page = await answer.text()
    assert "SOLUSDT" in page
    assert "Positions" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param({"symbols": "NOSUCHUSDT"}, "no synthetic instrument 'NOSUCHUSDT'", id="unknown-symbol"),
        pytest.param({"symbols": "0"}, "--symbols expects 1 to 600", id="no-symbols"),
        pytest.param({"edge": "2"}, "--edge expects 0 to 0.6", id="edge"),
        pytest.param({"speed": "0"}, "--speed expects", id="speed"),
        pytest.param({"start": "yesterday"}, "--start expects a UTC time", id="start"),
        pytest.param({"balance": "much"}, "--balance expects a number", id="balance"),
        pytest.param({"replay": "/no/such/file.parquet"}, "no recording at /no/such/file.parquet", id="no-recording"),
    ],
)
async def test_bad_options_get_one_sentence(options, sentence):
    """Whatever is wrong, the answer is one sentence on stderr and exit status 2; no traceback."""
    process = await run_cli("serve", "--port=0", *(f"--{name}={value}" for name, value in options.items()))
    assert process[0] == 2
    assert sentence in process[2]
    assert "Traceback" not in process[2]
    assert process[2].strip().count("\n") == 0


async def run_cli(*arguments) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        ROOT / ".venv" / "bin" / "python" if (ROOT / ".venv").exists() else "python",
        "-m", "infra.sandbox", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 200)
    return process.returncode, out.decode(), err.decode()


async def test_a_port_in_use_and_damaged_recordings_get_one_sentence(tmp_path):
    """A taken port, a cut Parquet file and a CSV without the columns are each named for what they are."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        port = sandbox.url.rsplit(":", 1)[1]
        code, _, err = await run_cli("serve", f"--port={port}", "--symbols=1", "--history-days=1")
        assert code == 2
        assert f"Port {port}" in err
        assert "choose another" in err

    damaged = tmp_path / "cut.parquet"
    damaged.write_bytes(b"PAR1 and then nothing")
    code, _, err = await run_cli("serve", "--port=0", f"--replay={damaged}")
    assert (code, "damaged or cut short" in err) == (2, True)
    strange = tmp_path / "strange.csv"
    strange.write_text("a,b\n1,2\n")
    code, _, err = await run_cli("serve", "--port=0", f"--replay={strange}")
    assert (code, "lacks the columns" in err) == (2, True)


async def test_the_command_line_asks_a_running_venue():
    """`status`, `audit`, `truth` and `fault` print JSON; without a venue they say how to start one."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        for command, key in (("status", "now_ms"), ("audit", "unprotected"), ("truth", "edge")):
            code, out, _ = await run_cli(command, f"--url={sandbox.url}")
            assert (code, key in json.loads(out)) == (0, True)
            code, out, _ = await run_cli(command, f"--url={sandbox.url}", "--json")
            assert (code, key in json.loads(out), out.count("\n")) == (0, True, 1)
        code, out, _ = await run_cli("fault", f"--url={sandbox.url}", "--path=/fapi/v1/time", "--times=1")
        assert (code, json.loads(out)["faults"]) == (0, 1)
    code, _, err = await run_cli("status", f"--url={sandbox.url}")
    assert code == 1
    assert "start one with" in err


async def test_replay_of_a_csv_trades_and_then_halts(tmp_path):
    """A small recording is mapped to the venue's names, trades, and halts where it ends; what is missing stays so."""
    lines = ["exchange,symbol,timeframe,ts,open,high,low,close,volume"]
    missing = range(100, 103)
    for number in range(600):
        if number not in missing:
            price, opened = 100 + number % 7, 1_600_000_200_000 + number * 300_000
            lines.append(f"somewhere,COINUSD,5m,{opened},{price},{price + 1},{price - 1},{price},50")
    recording = tmp_path / "coin.csv"
    recording.write_text("\n".join(lines))
    async with running_sandbox(replay=recording, speed=1) as sandbox:
        status = await sandbox.get("/sandbox/status")
        assert status["symbols"] == ["COINUSDT"]
        table = await sandbox.get(
            f"/fapi/v1/klines?symbol=COINUSDT&interval=5m&startTime={status['first_ms']}&limit=110"
        )
        opened = {row[0] for row in table}
        assert len(table) == 110
        assert not opened & {1_600_000_200_000 + number * 300_000 for number in missing}
        exchange = client(sandbox.url)
        try:
            order = await exchange.create_order("COIN/USDT:USDT", "market", "buy", 1)
            assert order["status"] == "closed"
        finally:
            await exchange.close()
    # The same recording in seconds: who would trade before it ends would have to hurry.
    async with running_sandbox(replay=recording, speed=20_000) as sandbox:
        async with asyncio.timeout(200):
            await has_halted(sandbox)
        info = await sandbox.get("/fapi/v1/exchangeInfo")
        assert info["symbols"][0]["status"] == "BREAK"
        exchange = client(sandbox.url)
        try:
            with pytest.raises(ccxt.ExchangeError, match="-4108"):
                await exchange.create_order("COIN/USDT:USDT", "market", "sell", 1)
        finally:
            await exchange.close()


async def has_halted(sandbox) -> None:
    while not (await sandbox.get("/sandbox/status"))["halted"]:  # noqa: ASYNC110 - no event crosses processes.
        await asyncio.sleep(0.1)


def recorded_file() -> Path:
    return min(Path(os.environ["MARKET_DATA_DIR"]).glob("binance_usdm_5m*.parquet"))


@pytest.mark.needs_market_data
async def test_replay_of_real_candles_serves_what_was_recorded():
    """Real candles come through the klines endpoint unchanged, with thirty days of history before the start."""
    import pyarrow.parquet as pq

    path = recorded_file()
    async with running_sandbox(replay=path) as sandbox:
        status = await sandbox.get("/sandbox/status")
        symbol = status["symbols"][0]
        assert status["start_ms"] - status["first_ms"] >= 30 * 86_400_000
        table = await sandbox.get(
            f"/fapi/v1/klines?symbol={symbol}&interval=5m&startTime={status['first_ms']}&limit=1500"
        )
    recorded = [row for row in pq.read_table(path).to_pylist() if row["symbol"] == symbol][: len(table)]
    for row, truth in zip(table, recorded, strict=True):
        assert row[0] == truth["ts"]
        assert [float(one) for one in row[1:5]] == pytest.approx([truth[k] for k in ("open", "high", "low", "close")])
        assert float(row[5]) == pytest.approx(truth["volume"], abs=0.001)
