"""How soon an order is acknowledged through the gateway with the shared limiter on, beside ccxt's own limiter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from infra.prove.proof import Proof, Size
from infra.prove.servers import Servers
from infra.prove.stage import ROOT, WORKER_PYTHON, ProofError, Stage

MAX_P99_MS = 10.0
# With ccxt's limiter an order takes a fifth of a second.
ORDERS = {Size.FULL: (4_000, 200), Size.CI: (800, 40)}


def prove(size: Size) -> Proof:
    """Measure in the worker's own environment, order after order, and both limiters by turns."""
    ours, theirs = ORDERS[size]
    with Stage("order-latency") as stage, Servers(stage) as servers:
        url = servers.sandbox(symbols=4, speed=1, balance=100_000_000)
        done = subprocess.run(
            [WORKER_PYTHON, Path(__file__).with_name("order_clock.py"), url, stage.home, str(ours), str(theirs)],
            cwd=ROOT,
            env=stage.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    if done.returncode != 0:
        raise ProofError(f"The measurement failed: {done.stderr[-1500:]}")
    found = json.loads(done.stdout)
    return Proof(
        name="order-latency",
        figure=(
            f"p99 {found['limited']['p99']:.1f} ms, p50 {found['limited']['p50']:.1f} ms with the shared limiter;"
            f" ccxt's own p50 {found['ccxt']['p50']:.0f} ms"
        ),
        bar=f"p99 <= {MAX_P99_MS:g} ms, every order acknowledged",
        is_speed=True,
        holds=(
            found["limited"]["p99"] <= MAX_P99_MS
            and found["limited"]["orders"] == ours
            and found["counted"] >= found["last_minute"] > 0
        ),
        details=(
            f"shared limiter: {_line(found['limited'])}",
            f"orders of the account that it counts: {found['counted']}, sent in the last minute {found['last_minute']}",
            f"no limiter: {_line(found['bare'])}",
            f"ccxt's limiter: {_line(found['ccxt'])}",
            f"limiter and breakers alone: p50 {found['limiter_us']:.0f} us an order",
        ),
    )


def _line(figures: dict[str, float]) -> str:
    return (
        f"{figures['orders']:.0f} orders, p50 {figures['p50']:.2f} ms, p90 {figures['p90']:.2f} ms,"
        f" p99 {figures['p99']:.2f} ms, slowest {figures['most']:.1f} ms"
    )
