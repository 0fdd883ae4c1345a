"""What the worker costs: seconds to its first possible decision, and memory with a hundred symbols."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from infra.prove.practice import SERVERS, point_champion, retrain
from infra.prove.proof import Proof, Size
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import Stage, wait_until

SYMBOLS = 100
MAX_COLD_START_S = 3.0
MAX_RSS_MB = 350.0
STARTS = 5


@dataclass(frozen=True, slots=True)
class _Start:
    """One life of the worker, measured from outside but for its own word on when it could decide."""

    cold_s: float
    cpu_s: float
    waited_s: float
    rss_mb: float
    pss_mb: float


def prove(size: Size) -> Proof:
    """Start the worker on a hundred symbols from a cached, verified bundle; the median of five starts counts."""
    with Stage("footprint") as stage:
        urls = stage.up(SERVERS, symbols=SYMBOLS, speed=60)
        # CI trains the same four members for fewer steps: files of the same kind, somewhat fewer trees.
        version = retrain(stage, size="full" if size is Size.FULL else "quick", days=12)
        point_champion(urls["mlflow"], version)
        worker = RunningWorker(stage, urls)
        worker.start()
        worker.wait_for("trading", seconds=120)
        worker.stop()
        starts = [_start(stage, worker) for _ in range(STARTS)]

    cold, cpu = median(one.cold_s for one in starts), median(one.cpu_s for one in starts)
    waited = median(one.waited_s for one in starts)
    # Of memory the worst start counts: what a machine must have is no matter of luck.
    rss, pss = max(one.rss_mb for one in starts), max(one.pss_mb for one in starts)
    return Proof(
        name="footprint",
        figure=f"cold start {cold:.2f} s, resident memory {rss:.0f} MB with {SYMBOLS} symbols",
        bar=f"<= {MAX_COLD_START_S:g} s, <= {MAX_RSS_MB:g} MB",
        is_speed=True,
        holds=cold <= MAX_COLD_START_S and rss <= MAX_RSS_MB,
        details=(
            f"cold starts {[one.cold_s for one in starts]} s",
            f"in the median {cpu:.2f} s of processor time, and {waited:.2f} s of waiting for a processor others used",
            f"resident memory {[round(one.rss_mb) for one in starts]} MB, at most {pss:.0f} MB of it not shared (PSS)",
        ),
    )


def _start(stage: Stage, worker: RunningWorker) -> _Start:
    """Start the worker, let it decide on four candles of every symbol, and stop it."""
    worker.start()
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    status = worker.wait_for("trading", seconds=60)
    times, waited_s = process.cpu_times(), _waited_s(process.pid)
    seen = status["candles_processed"]
    wait_until(
        lambda: stage.worker_status().get("candles_processed", 0) >= seen + 4 * SYMBOLS,
        seconds=90,
        what="four more candles of every symbol",
    )
    memory = process.memory_full_info()
    worker.stop()
    return _Start(
        cold_s=float(status["cold_start_s"]),
        waited_s=waited_s,
        cpu_s=times.user + times.system,
        rss_mb=memory.rss / 2**20,
        pss_mb=memory.pss / 2**20,
    )


def _waited_s(pid: int) -> float:
    """Return how long the main thread could have run and had no processor: what a quiet machine would not take."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
