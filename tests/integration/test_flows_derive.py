"""The ingest flow with minutes: what it derives, under a real Prefect server, from a real exchange."""

from __future__ import annotations

import json

import numpy as np

from feature_store.candle import Series, Timeframe
from feature_store.derived import derive
from feature_store.lake import CandleLake
from feature_store.sources.deriving import is_derived
from tests.stack_fixtures import newest_artifacts, qtctl, sandbox_venue


def test_minutes_are_fetched_and_longer_candles_derived(prefect_server, tmp_path):
    """Minutes come from the venue, longer candles from them; asking for those later goes through the minutes."""
    with sandbox_venue(tmp_path / "sandbox", symbols=2, speed=60) as venue:
        env = {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_VENUE_URL": venue}
        done = qtctl("ingest", "--timeframe", "1m", "--derive", "5m,1h", "--days", "1", "--json", env=env)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)) == 2
        bar = newest_artifacts(prefect_server)["progress-ingest"]
        assert "candles" in bar["description"]
        assert bar["data"] == 100.0
        lake = CandleLake(tmp_path / "lake")
        minutes = next(one for one in lake.series() if one.timeframe is Timeframe.M1)
        for timeframe in (Timeframe.M5, Timeframe.H1):
            target = Series(minutes.venue, minutes.symbol, timeframe)
            assert is_derived(lake, target)
            assert lake.read(target).equals(derive(lake.read_rows(minutes), timeframe).latest().block)
        again = qtctl("ingest", "--timeframe", "5m", "--days", "1", "--json", env=env)
        assert again.returncode == 0, again.stderr
        five = lake.read(Series(minutes.venue, minutes.symbol, Timeframe.M5))
        assert np.array_equal(five.open_time_ms, derive(lake.read_rows(minutes), Timeframe.M5).block.open_time_ms)
        refused = qtctl("ingest", "--derive", "1h", env=env)
        assert refused.returncode == 2
        assert "--timeframe 1m" in refused.stderr
