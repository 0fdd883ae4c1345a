"""Files that other programs write, made for tests: Binance's archives, freqtrade's folders, and a server of files."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import shutil
import threading
import zipfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.feather

from feature_store.candle import COLUMNS, CandleBlock, Timeframe
from feature_store.lake import CandleLake
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import SourceKind, open_source
from tests.feature_support import market

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
DAY = 288
JAN_2024, FEB_2024, JAN_2025 = 1_704_067_200_000, 1_706_745_600_000, 1_735_689_600_000
NOW_MS = 1_740_000_000_000


def days(count: int, start_ms: int = JAN_2024, seed: int = 1) -> CandleBlock:
    """Return days of 5m candles."""
    return market(count * DAY, start_ms=start_ms, seed=seed)


def klines(block: CandleBlock, *, unit: int = 1, header: bool = False, step_ms: int = 300_000) -> str:
    """Return candles as the text of Binance's klines; `unit` is 1000 for microseconds."""
    rows = [HEADER] if header else []
    for time, row in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True):
        prices = ",".join(f"{value!r}" for value in row)
        rows.append(f"{time * unit},{prices},{(time + step_ms) * unit - 1},1.0,3,0.5,0.5,0")
    return "\n".join(rows) + "\n"


def archive(
    root: Path, symbol: str, period: str, text: str, *, market: str = "spot", member: str | None = None
) -> Path:
    """Write one archive and its checksum in the layout of data.binance.vision."""
    every = "daily" if len(period) == 10 else "monthly"
    name = f"{symbol}-5m-{period}"
    path = root / f"data/{market}/{every}/klines/{symbol}/5m/{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member or f"{name}.csv", text)
    path.write_bytes(packed.getvalue())
    return seal(path)


def seal(path: Path) -> Path:
    """Write the checksum beside an archive."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")
    return path


def feather(path: Path, block: CandleBlock, *, unit: str = "ms", **more: list) -> Path:
    """Write candles as freqtrade's feather file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dates = pa.array(block.open_time_ms, pa.timestamp("ms", tz="UTC")).cast(pa.timestamp(unit, tz="UTC"))
    columns = {"date": dates} | dict(zip(COLUMNS, block.values.T, strict=True)) | more
    pyarrow.feather.write_feather(pa.table(columns), str(path), compression="lz4")
    return path


def json_file(path: Path, block: CandleBlock) -> Path:
    """Write candles as freqtrade's json or json.gz file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[time, *row] for time, row in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True)]
    content = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def recording(path: Path, *parts: tuple[str, str, CandleBlock], timeframe: str = "5m") -> Path:
    """Write a CSV recording of series, each with its venue and symbol."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["exchange,symbol,timeframe,ts,open,high,low,close,volume"]
    for venue, symbol, block in parts:
        for time, row in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True):
            rows.append(f"{venue},{symbol},{timeframe},{time},{','.join(map(repr, row))}")
    path.write_text("\n".join(rows) + "\n")
    return path


def moved(path: Path, folder: Path) -> Path:
    """Copy an archive and its checksum into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in (path, path.with_name(f"{path.name}.CHECKSUM")):
        shutil.copy(one, folder)
    return folder / path.name


def refused(
    lake: CandleLake, place: Path, kind: SourceKind | None = None, *, selection: Selection | None = None
) -> str:
    """Import what must be refused, see that the lake did not change, and return the reason."""
    before = {path: path.read_bytes() for path in lake.root.rglob("*.parquet")}
    chosen = selection or Selection()
    source = open_source(str(place), kind, selection=chosen, now_ms=NOW_MS, days=3)
    done = import_candles(lake, source, chosen, now_ms=NOW_MS)
    assert len(done.refused) == 1
    assert (done.appended, done.candles, done.known) == (0, 0, 0)
    assert {path: path.read_bytes() for path in lake.root.rglob("*.parquet")} == before
    again = import_candles(lake, source, chosen, now_ms=NOW_MS)
    assert again.refused == done.refused, "A refused file was taken for an imported one"
    return done.refused[0].reason


@contextmanager
def served(root: Path, *, fail_once: frozenset[str] = frozenset()):
    """Serve a folder on loopback; yield its address and how often each path was asked for."""
    asked: Counter[str] = Counter()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(root))

        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked[name] += 1
            if name in fail_once and asked[name] == 1:
                # Half of what was promised, as a connection that breaks.
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"half")
                return
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


STEP = Timeframe.M5.milliseconds
