"""The universe as a person meets it: the weekly flow in Prefect, `qtctl universe`, and training that follows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.universe.candle_filters import CandleFilters
from feature_store.universe.selection import WEEK_MS
from flows.frames import recent_frames
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.dataset import Dataset
from flows.universes import Members, NoUniverseError, build_universes, members_of
from inference.models.manifest import TimeWindow
from tests.object_store import KEYS, object_store
from tests.stack_fixtures import QUIET, ROOT, newest_artifacts, qtctl
from tests.universe_support import MONDAY_MS, STEP, candles, hourly, perpetual

LAST_MS = MONDAY_MS + 4 * WEEK_MS
RULES = '[universe]\nmode = "all"\n[universe.filters]\nmin_age_days = 7\nblacklist = ["BAD"]\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a home whose lake holds a symbol that stays, one that leaves, one that comes, and one that is barred."""
    home = tmp_path_factory.mktemp("home")
    lake = CandleLake(home / "lake")
    start, end = MONDAY_MS - WEEK_MS, LAST_MS + WEEK_MS // 7
    lake.append(hourly("STAYS"), candles(start, end))
    lake.append(hourly("LEAVES"), candles(start, MONDAY_MS + 2 * WEEK_MS + WEEK_MS // 2, volume=3_000.0))
    lake.append(hourly("COMES"), candles(MONDAY_MS + WEEK_MS, end, volume=2_000.0))
    lake.append(hourly("BAD"), candles(start, end, volume=9_000.0))
    (home / "rules.toml").write_text(RULES)
    return home


def _environment(home, **more: str) -> dict[str, str]:
    rules = str(home / "rules.toml")
    return {"QUANTUM_HOME": str(home), "QT_VENUE": "sandbox", "QT_TIMEFRAME": "1h", "QT_UNIVERSE": rules} | more


@pytest.fixture(scope="module")
def built(home):
    """Build all weeks with the command, and return what it printed."""
    done = qtctl("universe", "build", "--json", env=_environment(home))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_build_tells_the_newest_week(built):
    """The command needs no server; it says how many weeks it judged and who is in now."""
    assert built["weeks"] == 5
    assert built["symbols"] == [perpetual("COMES"), perpetual("STAYS")]


def test_build_names_what_has_no_candles(home, built, tmp_path):
    """A symbol that the venue listed and that was never fetched is named: no week can include it."""
    (tmp_path / "lake").symlink_to(home / "lake")
    (tmp_path / "venues").mkdir()
    (tmp_path / "venues" / "sandbox.json").write_text(json.dumps([perpetual("DIED"), perpetual("STAYS")]))
    environment = _environment(home, QUANTUM_HOME=str(tmp_path))
    told = qtctl("universe", "build", env=environment)
    again = qtctl("universe", "build", "--json", env=environment)

    assert (
        f"1 listed or once listed symbols have no candles; all weeks are chosen without them: {perpetual('DIED')}"
        in told.stdout
    )
    assert json.loads(again.stdout)["without candles"] == [perpetual("DIED")]
    assert built["without candles"] == []


def test_show_at_a_past_moment(home, built):
    """At a past moment the universe is the one of then, with a symbol that has left since."""
    shown = qtctl("universe", "show", "--at", "2023-11-29T10:00", "--json", env=_environment(home))
    table = qtctl("universe", "show", "--at", "2023-11-29", env=_environment(home))

    assert json.loads(shown.stdout)["symbols"] == [perpetual("LEAVES"), perpetual("STAYS")]
    assert "BLACKLISTED" in table.stdout
    assert "Week of 2023-11-27 00:00: 2 of 3 known symbols are in; refused: 1 BLACKLISTED" in table.stdout


def test_why_tells_both_answers(home, built):
    """Included symbols are told their rank, the others the filter with its numbers; an unknown one is bad usage."""
    included = qtctl("universe", "why", perpetual("STAYS"), env=_environment(home))
    gone = qtctl("universe", "why", perpetual("LEAVES"), env=_environment(home))
    unknown = qtctl("universe", "why", "DOGE/USDT", "--json", env=_environment(home))

    assert "Included as number 2 of 2 by volume." in included.stdout
    assert "Refused: STALE (minutes_without_candle" in gone.stdout
    assert unknown.returncode == 2
    assert "has no symbol 'DOGE/USDT'" in json.loads(unknown.stdout)["error"]


def test_history_tells_who_joined_and_left(home, built):
    """Each week says how many were in, who joined and who left."""
    rows = json.loads(qtctl("universe", "history", "--json", env=_environment(home)).stdout)

    assert [row["symbols"] for row in rows] == [2, 2, 3, 2, 2]
    assert rows[3]["left"] == [perpetual("LEAVES")]
    assert qtctl("universe", "history", env=_environment(home)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "env", "status", "said"),
    [
        pytest.param(("show", "--at", "soon"), {}, 2, "--at needs a moment", id="no-moment"),
        pytest.param(("show", "--at", "2001-01-01"), {}, 1, "was known at 2001-01-01", id="too-early"),
        pytest.param(("show", "--venue", "bitfinex"), {}, 2, "No 1h candles of bitfinex", id="nothing-stored"),
        pytest.param(("history", "--venue", "bitfinex"), {}, 1, "is stored", id="no-history"),
        pytest.param(("build",), {"QT_UNIVERSE": "absent.toml"}, 2, "Cannot read absent.toml", id="no-rules"),
    ],
)
def test_what_cannot_be_answered(home, built, arguments, env, status, said):
    """A question without an answer ends with its status and one sentence."""
    done = qtctl("universe", *arguments, env=_environment(home, **env))

    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_weekly_flow(prefect_server, tmp_path, home):
    """The flow judges the weeks that are missing, and its tables say why each symbol is in or out, week by week."""
    env = {**os.environ, **QUIET, **prefect_server.env, **_environment(home), "QUANTUM_HOME": str(tmp_path)}
    (tmp_path / "lake").symlink_to(home / "lake")
    code = "import json; from flows.universe import universe; print('result', json.dumps([universe(), universe()]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    first, second = json.loads(done.stdout.partition("result ")[2])
    assert (first["weeks"], second["weeks"]) == (5, 0)
    assert first["symbols"] == second["symbols"] == [perpetual("COMES"), perpetual("STAYS")]
    artifacts = newest_artifacts(prefect_server)
    assert {"universe", "universe-history", "progress-universe"} <= set(artifacts)
    rows = {row["symbol"]: row for row in json.loads(artifacts["universe"]["data"])}
    assert rows[perpetual("BAD")]["verdict"] == "BLACKLISTED"
    assert rows[perpetual("LEAVES")]["verdict"].startswith("STALE (minutes_without_candle")


def test_training_follows_the_universe(home, built, monkeypatch):
    """With QT_SYMBOLS=universe a symbol is learned from just while it was in, also one that has left since."""
    for name, value in _environment(home, QT_SYMBOLS="universe", QT_DAYS="28").items():
        monkeypatch.setenv(name, value)
    frames = recent_frames(FlowSettings.of(), horizon=12)
    dataset = Dataset(frames, horizon=12, window=8)

    assert frames.symbols == tuple(perpetual(name) for name in ("COMES", "LEAVES", "STAYS"))
    left = dataset.series == frames.symbols.index(perpetual("LEAVES"))
    came = dataset.series == frames.symbols.index(perpetual("COMES"))
    joined_ms = MONDAY_MS + 2 * WEEK_MS
    assert dataset.complete[left].any()
    assert not dataset.complete[came & (dataset.open_time_ms < joined_ms)].any()
    assert dataset.complete[came & (dataset.open_time_ms >= joined_ms + STEP)].all()
    # Features were warm when the symbol joined: what was excluded before still counts as their past.
    assert np.isfinite(frames.frames[0].inputs[dataset.open_time_ms[came] >= joined_ms]).all()
    window = TimeWindow(start_ms=joined_ms + STEP, end_ms=joined_ms + WEEK_MS // 2)
    assert dataset.coverage(window) == 1.0


def test_training_asks_the_filters_of_each_candle(home, built, monkeypatch):
    """Where the week holds a symbol, it is learned from at candles that pass its filters, and at no others."""
    for name, value in _environment(home, QT_SYMBOLS="universe", QT_DAYS="28").items():
        monkeypatch.setenv(name, value)
    settings = FlowSettings.of()
    members, symbol = members_of(settings), hourly("LEAVES")
    quiet_ms = MONDAY_MS + 2 * WEEK_MS + WEEK_MS // 2
    marks = {frame.symbol: frame for frame in recent_frames(settings, horizon=12).frames}[symbol.symbol]
    rows = settings.candle_lake().read_rows(symbol)
    decided_ms = rows.available_at_ms
    weekly = Members(members.market, members.universes)
    lake, times = settings.candle_lake(), rows.block.open_time_ms

    assert members.filters == CandleFilters(min_volume_24h=1e6, max_silence_minutes=60)
    assert marks.eligible[marks.open_time_ms < quiet_ms].any()
    strict = replace(members, filters=CandleFilters(min_volume_24h=1e9, max_silence_minutes=60))
    assert weekly.eligible(lake, symbol, times, decided_ms).any()
    assert not strict.eligible(lake, symbol, times, decided_ms).any()
    np.testing.assert_array_equal(
        members.eligible(lake, symbol, times, decided_ms)[np.isin(times, marks.open_time_ms)], marks.eligible
    )
    assert training_config(settings, datetime(2026, 1, 1, tzinfo=UTC)).universe_filters == members.filters


def test_without_a_universe_training_says_so(home, tmp_path, monkeypatch):
    """Following a universe that was never built is refused in one sentence."""
    (tmp_path / "lake").symlink_to(home / "lake")
    for name, value in _environment(home, QT_SYMBOLS="universe", QUANTUM_HOME=str(tmp_path)).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(NoUniverseError, match="qtctl universe build"):
        recent_frames(FlowSettings.of(), horizon=12)
    assert len(build_universes(FlowSettings.of())) == 5
    assert recent_frames(FlowSettings.of(), horizon=12).frames


def test_candles_in_an_object_store_give_the_same_universes(home, built, tmp_path, monkeypatch):
    """Wherever QT_LAKE puts the candles, the weeks and their members are the same."""
    with object_store() as server:
        chosen = _environment(home, QUANTUM_HOME=str(tmp_path), QT_LAKE=server.address("candles")) | KEYS
        for name, value in chosen.items():
            monkeypatch.setenv(name, value)
        settings, local = FlowSettings.of(), CandleLake(home / "lake")
        for series in local.series():
            settings.candle_lake().append(series, local.read(series))
        weeks = build_universes(settings)

    assert list(weeks[-1].universe.symbols) == built["symbols"]
    assert len(weeks) == built["weeks"]


def test_a_list_of_symbols_stays_a_list(monkeypatch, tmp_path):
    """`universe` is followed only where it is said alone; all other values mean what they meant."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    said = {symbols: FlowSettings.of(symbols=symbols) for symbols in ("all", "universe", " universe ", "BTC/USDT")}

    assert [one.follows_universe for one in said.values()] == [False, True, True, False]
    assert said["universe"].chosen_symbols() is None
    assert said["BTC/USDT"].chosen_symbols() == ("BTC/USDT",)
    assert Series("sandbox", "universe", Timeframe.H1).symbol == "universe"
