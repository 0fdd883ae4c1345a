"""Run proofs: those that judge a clock or a running system alone, those that only compute beside each other."""

from __future__ import annotations

import importlib
import math
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import groupby

from feature_store.clock import monotonic
from infra.prove.proof import Proof, Size

# Of these neither a clock nor a running worker is judged, so that they may share the machine.
COMPUTING = frozenset(
    {
        "quality",
        "feature-parity",
        "no-lookahead",
        "feature-oracle",
        "bundle-tamper",
        "determinism",
        "drift-alarms",
        "supervision",
        "lookahead",
        "learning-real",
        "null-gate",
        "power",
        "tuning",
        "replay",
        "retrain-crash",
        "training-on-ray",
        "null-market",
        "real-candles",
        "fresh-clone-tests",
    }
)


def _run(name: str, size: Size) -> Proof:
    module = importlib.import_module(f"infra.prove.{name.replace('-', '_')}")
    proof: Proof = module.prove(size)
    return proof


def _timed(name: str, size: Size) -> tuple[Proof, float]:
    """Run a proof and time it; one that raises has failed, and must not hide the others' figures."""
    began = monotonic()
    try:
        proof = _run(name, size)
    except Exception as error:  # noqa: BLE001 - see above
        proof = Proof(name=name, figure=f"{type(error).__name__}: {error}", bar="runs to its end", holds=False)
    return proof, monotonic() - began


def _announce(name: str, size: Size) -> None:
    print(f"── prove-{name} ({size}) ──", flush=True)


def results(names: list[str], size: Size, lanes: int, limit_s: float = math.inf) -> Iterator[tuple[Proof, float]]:
    """
    Run proofs in order, those that may share the machine in `lanes` processes, each other alone.

    None is begun once `limit_s` seconds have passed; what was begun ends.
    """
    began = monotonic()
    for together, group in groupby(names, key=lambda name: lanes > 1 and name in COMPUTING):
        some = list(group)
        if not together or len(some) == 1:
            for name in some:
                if monotonic() - began > limit_s:
                    return
                _announce(name, size)
                yield _timed(name, size)
            continue
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(lanes, len(some)), mp_context=context, max_tasks_per_child=1) as pool:
            waiting, running = deque(some), dict[Future[tuple[Proof, float]], str]()
            while waiting or running:
                while waiting and len(running) < lanes and monotonic() - began <= limit_s:
                    name = waiting.popleft()
                    running[pool.submit(_timed, name, size)] = name
                if not running:
                    return
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    _announce(running.pop(done), size)
                    yield done.result()
