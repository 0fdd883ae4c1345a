"""The import as a flow of a real Prefect: progress, what came, what was refused and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from tests.feature_support import market
from tests.import_support import JAN_2024, days, feather, recording
from tests.stack_fixtures import QUIET, ROOT, newest_artifacts


def imported(prefect_server, home, arguments: str) -> dict[str, int]:
    """Run the flow in a process of its own and return what it returned."""
    code = f"import json; from flows.imports import import_files; print('done', json.dumps(import_files({arguments})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **QUIET, **prefect_server.env, "QUANTUM_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, int] = json.loads(done.stdout.partition("done ")[2])
    return result


def test_an_import_reports_what_came_and_what_was_refused(prefect_server, tmp_path):
    """Two good files and a torn one: the run completes, the bar ends at 100 %, and the artifacts say all three."""
    folder = tmp_path / "user_data/data/binance"
    feather(folder / "BTC_USDT-5m.feather", days(3))
    feather(folder / "ETH_USDT-5m.feather", days(2))
    feather(folder / "ADA_USDT-5m.feather", days(1)).write_bytes(b"torn")
    result = imported(prefect_server, tmp_path / "home", f"{str(folder)!r}")
    assert result == {
        "new": 5 * 288,
        "corrections": 0,
        "derived": 0,
        "files": 3,
        "known": 0,
        "refused": 1,
        "missing": 0,
    }
    lake = CandleLake(tmp_path / "home" / "lake")
    assert lake.read(Series("binance", "BTC/USDT", Timeframe.M5)).equals(days(3))

    artifacts = newest_artifacts(prefect_server)
    assert [row["symbol"] for row in json.loads(artifacts["import"]["data"])] == ["BTC/USDT", "ETH/USDT"]
    (refused,) = json.loads(artifacts["import-refused"]["data"])
    assert refused["file"].endswith("ADA_USDT-5m.feather")
    assert "not a whole feather file" in refused["reason"]
    assert "Refused 1 files" in artifacts["import-report"]["data"]
    assert float(artifacts["progress-import"]["data"]) == 100
    assert "3 of 3 files, 1,440 candles" in artifacts["progress-import"]["description"]


def test_the_flow_derives_of_imported_minutes(prefect_server, tmp_path):
    """Longer candles are made of the minutes that a file brought, as the command makes them."""
    block = market(100, start_ms=JAN_2024, timeframe=Timeframe.M1)
    path = recording(tmp_path / "minutes.csv", ("kraken", "BTC/USDT", block), timeframe="1m")
    result = imported(prefect_server, tmp_path / "home", f"{str(path)!r}, derive='5m'")
    assert (result["new"], result["derived"]) == (100, 20)
    assert len(CandleLake(tmp_path / "home/lake").read(Series("kraken", "BTC/USDT", Timeframe.M5))) == 20
