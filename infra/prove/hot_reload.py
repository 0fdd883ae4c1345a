"""The alias moves while the worker trades: the new version takes over within a candle, a spoilt one never does."""

from __future__ import annotations

from pathlib import Path

from infra.prove.practice import SERVERS, point_champion, restless_policy, retrain
from infra.prove.proof import Proof, Size
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import ProofError, Stage, wait_until

SPEED = 60
CANDLE_S = 300 / SPEED


def _spoil(stage: Stage, version_name: str) -> Path:
    """Flip one byte of a member file of the newest stored bundle, on the server's own disk."""
    found = sorted((stage.home / "mlflow").rglob("bundle/xgboost.ubj"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ProofError(f"MLflow's artifacts hold no bundle for version {version_name}")
    data = bytearray(found[-1].read_bytes())
    data[len(data) // 2] ^= 1
    found[-1].write_bytes(bytes(data))
    return found[-1]


def prove(_size: Size) -> Proof:
    """Three versions: the first trades, the second takes over, the third is spoilt and refused."""
    with Stage("hot-reload") as stage:
        urls = stage.up(SERVERS, symbols=10, speed=SPEED)
        first, second, third = (retrain(stage, size="tiny", days=8) for _ in range(3))
        spoilt = _spoil(stage, third)
        point_champion(urls["mlflow"], first)
        worker = RunningWorker(stage, urls, policy=restless_policy(stage))
        worker.start()
        worker.wait_for("trading", seconds=120)

        def version() -> str:
            return str(stage.worker_status().get("model", {}).get("version"))

        point_champion(urls["mlflow"], second)
        took = wait_until(lambda: version() == second, seconds=60, what="the second version to trade")
        point_champion(urls["mlflow"], third)
        before = stage.worker_status()["candles_processed"]
        wait_until(
            lambda: stage.worker_status()["candles_processed"] >= before + 30, seconds=60, what="three more candles"
        )
        kept = version() == second and stage.worker_status()["state"] == "trading"
        journal = (stage.home / "journal" / "journal.jsonl").read_text()
        refused = "model.refused" in journal
        verified = stage.qtctl("audit", "verify", "--json", check=False).returncode == 0
        worker.stop()

    # One candle, plus the moment that the poll and the status file need to see it.
    holds = took <= CANDLE_S + 2 and kept and refused and verified
    return Proof(
        name="hot-reload",
        figure=(
            f"new version after {took:.1f} s (a candle is {CANDLE_S:g} s); flipped byte refused {refused}, "
            f"old version trades on {kept}"
        ),
        bar="within one candle; refused; trades on",
        holds=holds,
        details=(f"spoilt {spoilt.name} of version {third}", f"journal verified {verified}"),
    )
