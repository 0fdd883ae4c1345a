"""A champion and its twin on live candles: each candle paired, each outcome right, and what it costs the worker."""

from __future__ import annotations

import shutil
import urllib.parse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from flows.registry import Registry
from flows.replay.live_figures import live_report
from flows.replay.maturing import LiveRows
from flows.shadowing import read_shadow
from flows.training.live_evidence import Market
from inference.domain.shadow import ShadowScored
from inference.journal.reader import day_files
from inference.models import manifest as manifests
from inference.models.bundle import bundle_digest
from inference.models.manifest import MANIFEST_NAME
from infra.prove.practice import SERVERS, point_champion, retrain
from infra.prove.proof import Proof, Size
from infra.prove.record import events_in, versions_decided
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import ProofError, Stage, get, wait_until

_STEP_MS = 300_000


def prove(size: Size) -> Proof:
    """
    Let a challenger that is the champion in all but its digest be scored inside the worker, which is killed half-way.

    A twin must say what the champion says, to the bit, on every candle that was decided, and its difference must be 0;
    outcomes are held against the candles that the exchange itself tells afterwards.
    """
    whole = size is Size.FULL
    symbols, speed, candles = (100, 60, 60) if whole else (10, 240, 30)
    with Stage("live-shadow") as stage:
        urls = stage.up(SERVERS, symbols=symbols, speed=speed)
        champion = retrain(stage, size="full" if whole else "tiny", days=12 if whole else 8)
        point_champion(urls["mlflow"], champion)
        twin = _twin(stage, urls["mlflow"], champion)
        worker = RunningWorker(stage, urls)
        worker.environment["QT_SHADOW"] = "off"
        alone = _alone(stage, worker)
        worker.environment["QT_SHADOW"] = "inside"
        first = _scored(stage, worker, candles // 2)
        worker.kill()
        until_ms = max(_closes(stage.home))
        last = _scored(stage, worker, candles // 2)
        worker.stop()
        stage.qtctl("shadow", "--live", "--json")
        logged = Registry(urls["mlflow"]).metrics(Registry(urls["mlflow"]).version(twin).run_id)
        record = read_shadow(stage.home / "shadow" / "journal", Market(venue="sandbox", mode="sandbox"))
        if len(record.challengers) != 1:
            raise ProofError(f"One challenger was scored, the journal tells of {len(record.challengers)}")
        rows = record.challengers[0]
        decided = [close_ms for close_ms, _ in versions_decided(events_in(stage.home / "journal" / "journal.jsonl"))]
        correlation = _beside_candles(urls["sandbox"], rows)

    said = _closes(stage.home)
    lives = [[one for one in said if one <= until_ms], [one for one in said if one > until_ms]]
    due = {one for one in decided for life in lives if min(life) <= one <= max(life)}
    missed = len(due - said)
    assert rows.theirs is not None
    same = bool(
        rows.beside.all()
        and np.array_equal(rows.ours.expected, rows.theirs.expected, equal_nan=True)
        and np.array_equal(rows.ours.probability_up, rows.theirs.probability_up, equal_nan=True)
    )
    figures = live_report(rows).metrics
    difference = figures["live_shadow/ensemble_minus_champion/net_per_slot_bps"]
    agrees = logged["live_shadow/days"] == figures["live_shadow/days"]
    latency = last["decision_latency_ms"]["p99"], alone["decision_latency_ms"]["p99"]
    return Proof(
        name="live-shadow",
        figure=(
            f"{len(said)} candles of {symbols} symbols scored in shadow, {missed} missed; {len(rows)} outcomes, "
            f"{rows.unpriced} without a price; the twin equal to the bit {same}, ahead by {difference:g} bps; "
            f"outcomes follow the exchange's candles by {correlation:.3f}"
        ),
        bar="at most 1 in 20 missed, equal, 0 bps, 0.98, the same in MLflow",
        holds=20 * missed <= len(due) and same and difference == 0 and correlation >= 0.98 and agrees,
        details=(
            f"memory: {first['rss_mb']:.0f} and {last['rss_mb']:.0f} MB beside, {alone['rss_mb']:.0f} MB without",
            f"decisions took {latency[0]:.1f} ms at the 99th percentile beside it, {latency[1]:.1f} ms without",
            f"scoring took {last['shadow']['latency_ms']['p99']:.1f} ms, passed over: {last['shadow']['skipped']}",
            f"MLflow holds {logged['live_shadow/days']:.4f} days of version {twin}, equal to the journal's {agrees}",
        ),
    )


def _twin(stage: Stage, mlflow: str, version: str) -> str:
    """Register the champion's bundle under another digest, as the challenger, and return its version."""
    registry = Registry(mlflow)
    folder = registry.download_bundle(version, stage.home / "twins")
    copy = Path(shutil.copytree(folder, stage.home / "twins" / "twin"))
    manifest = manifests.decode((copy / MANIFEST_NAME).read_bytes())
    (copy / MANIFEST_NAME).write_bytes(
        manifests.encode(msgspec.structs.replace(manifest, created_at="2026-01-01T00:00:00Z"))
    )
    run_id = registry.start_run("twin", tags={}, description="The champion once more, under another digest.")
    made = registry.register(run_id, copy, tags={"bundle_digest": bundle_digest(copy)}, description="A twin.")
    registry.finish_run(run_id)
    return made.version


def _alone(stage: Stage, worker: RunningWorker) -> dict[str, Any]:
    """Let the champion decide without a challenger, and return the worker's status."""
    worker.start()
    wait_until(lambda: _decided(stage) >= 8, seconds=240, what="eight decisions by the champion alone")
    status = stage.worker_status()
    worker.stop()
    return status


def _decided(stage: Stage) -> int:
    status = stage.worker_status()
    return int(status.get("batches_processed", 0)) if status.get("state") == "trading" else 0


def _scored(stage: Stage, worker: RunningWorker, candles: int) -> dict[str, Any]:
    """Start the worker, let it score that many candles in shadow, and return its status."""
    worker.start()
    worker.wait_for("trading", seconds=120)
    wait_until(
        lambda: int((stage.worker_status().get("shadow") or {}).get("candles", 0)) >= candles,
        seconds=900,
        what=f"{candles} candles scored in shadow",
    )
    return stage.worker_status()


def _closes(home: Path) -> set[int]:
    """Return the candles of which the shadow journals hold an opinion."""
    events = [one for path in day_files(home / "shadow" / "journal") for one in events_in(path)]
    return {one.candle_close_ms for one in events if isinstance(one, ShadowScored) and one.opinions}


def _beside_candles(sandbox: str, rows: LiveRows) -> float:
    """Return how outcomes at shown prices go with those of the closes that the exchange tells afterwards."""
    ours, theirs = [], []
    label = np.log((rows.ours.bid_out + rows.ours.ask_out) / (rows.bid_in + rows.ask_in))
    for place, symbol in enumerate(rows.symbols):
        at = rows.series == place
        query = {"symbol": symbol.replace("/", "").removesuffix(":USDT"), "interval": "5m", "limit": 1500}
        candles = get(f"{sandbox}/fapi/v1/klines?{urllib.parse.urlencode(query)}")
        closes = {int(one[0]) + _STEP_MS: float(one[4]) for one in candles}
        for close_ms, moved in zip(rows.close_ms[at].tolist(), label[at].tolist(), strict=True):
            ends_ms = close_ms + rows.ours.horizon * _STEP_MS
            if close_ms in closes and ends_ms in closes:
                ours.append(moved)
                theirs.append(np.log(closes[ends_ms] / closes[close_ms]))
    return float(np.corrcoef(ours, theirs)[0, 1])
