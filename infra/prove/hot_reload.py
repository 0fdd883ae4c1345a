"""The alias moves while the worker trades: the new version takes over within a candle, a spoilt one never does."""

from __future__ import annotations

from pathlib import Path

from infra.prove.practice import SERVERS, point_champion, restless_policy, retrain
from infra.prove.proof import Proof, Size
from infra.prove.record import events_in, notes_in, versions_decided
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import ProofError, Stage, get, wait_until

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
        journal = stage.home / "journal" / "journal.jsonl"
        point_champion(urls["mlflow"], first)
        worker = RunningWorker(stage, urls, policy=restless_policy(stage))
        worker.start()
        worker.wait_for("trading", seconds=120)

        def decided(version: str) -> list[int]:
            return [close_ms for close_ms, by in versions_decided(events_in(journal)) if by == version]

        wait_until(lambda: bool(decided(first)), seconds=60, what="the first version to decide")
        moved_ms = int(get(f"{urls['sandbox']}/fapi/v1/time")["serverTime"])
        point_champion(urls["mlflow"], second)
        took = wait_until(lambda: bool(decided(second)), seconds=60, what="the second version to decide")
        late = sum(close_ms > moved_ms for close_ms in decided(first))
        point_champion(urls["mlflow"], third)
        wait_until(lambda: _refused(journal, third) != "", seconds=60, what="the third version to be refused")
        before = len(decided(second))
        wait_until(lambda: len(decided(second)) >= before + 3, seconds=60, what="three more candles")
        status = stage.worker_status()
        kept = status["model"]["version"] == second and status["state"] == "trading" and not decided(third)
        reason = _refused(journal, third)
        verified = stage.qtctl("audit", "verify", "--json", check=False).returncode == 0
        worker.stop()

    # The candle during which the alias moved may still close under the old version, the next one may not.
    holds = late <= 1 and kept and spoilt.name in reason and verified
    return Proof(
        name="hot-reload",
        figure=(
            f"{late} candle decided by the old version after the move, by the new one after {took:.1f} s "
            f"(a candle is {CANDLE_S:g} s); flipped byte refused {spoilt.name in reason}, old version trades on {kept}"
        ),
        bar="at most 1 candle; refused; trades on",
        holds=holds,
        details=(f"spoilt {spoilt.name} of version {third}: {reason}", f"journal verified {verified}"),
    )


def _refused(journal: Path, version: str) -> str:
    """Return why a version was refused, or nothing."""
    notes = notes_in(events_in(journal), "model.refused")
    return next((one["reason"] for one in notes if one["version"] == version), "")
