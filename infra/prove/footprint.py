"""What the worker costs: seconds to its first possible decision, and memory with a hundred symbols."""

from __future__ import annotations

from infra.prove.practice import SERVERS, point_champion, retrain
from infra.prove.proof import Proof, Size
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import Stage, wait_until

SYMBOLS = 100
MAX_COLD_START_S = 3.0
MAX_RSS_MB = 350.0
STARTS = 3


def prove(size: Size) -> Proof:
    """Start the worker on a hundred symbols from a cached, verified bundle; the median of three starts counts."""
    with Stage("footprint") as stage:
        urls = stage.up(SERVERS, symbols=SYMBOLS, speed=60)
        # CI trains the same four members for fewer steps: files of the same kind, somewhat fewer trees.
        version = retrain(stage, size="full" if size is Size.FULL else "quick", days=12)
        point_champion(urls["mlflow"], version)
        worker = RunningWorker(stage, urls)
        worker.start()
        worker.wait_for("trading", seconds=120)
        worker.stop()

        starts, memory = [], []
        for _ in range(STARTS):
            worker.start()
            status = worker.wait_for("trading", seconds=60)
            seen = status["candles_processed"]
            wait_until(
                lambda: stage.worker_status().get("candles_processed", 0) >= seen + 4 * SYMBOLS,  # noqa: B023
                seconds=90,
                what="four more candles of every symbol",
            )
            status = stage.worker_status()
            starts.append(float(status["cold_start_s"]))
            memory.append(float(status["rss_mb"]))
            worker.stop()

    cold, rss = sorted(starts)[STARTS // 2], max(memory)
    return Proof(
        name="footprint",
        figure=f"cold start {cold:.2f} s, resident memory {rss:.0f} MB with {SYMBOLS} symbols",
        bar=f"<= {MAX_COLD_START_S:g} s, <= {MAX_RSS_MB:g} MB",
        is_speed=True,
        holds=cold <= MAX_COLD_START_S and rss <= MAX_RSS_MB,
        details=(f"cold starts {starts} s", f"resident memory {memory} MB"),
    )
