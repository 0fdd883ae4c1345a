"""`kill -9` at random moments: after every restart the journal and the venue agree, nothing doubled, lost or bare."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from infra.prove.practice import SERVERS, point_champion, restless_policy, retrain
from infra.prove.proof import Proof, Size
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import Stage, get, wait_until

KILLS = {Size.FULL: 20, Size.CI: 6}
SPEED = 120
# A restarted worker may be killed in its first moments too.
LONGEST_LIFE_S = 12.0


def _bare(audit: dict[str, Any]) -> list[str]:
    return [str(one["symbol"]) for one in audit["open_positions"] if not one.get("protected", False)]


def _known_to_venue(audit: dict[str, Any]) -> set[str]:
    return {str(one["client_order_id"]) for one in [*audit["orders"], *audit["algo_orders"]]}


def prove(size: Size) -> Proof:
    """Kill and restart a busy worker; after each restart compare what it wrote with what the venue did."""
    kills, rng = KILLS[size], random.Random(20)
    duplicates: set[str] = set()
    lost: list[str] = []
    bare: list[str] = []
    disagreements: list[str] = []
    with Stage("kill-worker") as stage:
        urls = stage.up(SERVERS, symbols=10, speed=SPEED)
        point_champion(urls["mlflow"], retrain(stage, size="tiny", days=8))
        worker = RunningWorker(stage, urls, policy=restless_policy(stage))
        worker.start()
        worker.wait_for("trading", seconds=120)
        for kill in range(kills):
            time.sleep(rng.uniform(0.2, LONGEST_LIFE_S))
            worker.kill()
            worker.start()
            worker.wait_for("trading", "idle", seconds=90)
            # Positions opened this instant are still being covered; bare is what stays bare.
            try:
                wait_until(lambda: not _bare(_audit(urls)), seconds=3, what="stops")
            except Exception:  # noqa: BLE001 - counted below, with the symbols named
                bare += [f"kill {kill}: {symbol}" for symbol in _bare(_audit(urls))]
            duplicates |= {str(one) for one in _audit(urls)["duplicate_client_ids"]}
        worker.stop()
        final = _audit(urls)
        verified = stage.qtctl("audit", "verify", "--json", check=False)
        if verified.returncode != 0:
            disagreements.append(f"journal: {verified.stdout.strip()[-300:]}")
        trades = json.loads(stage.qtctl("audit", "trades", "--json").stdout)
        lost, booked = _compare(trades, final)
        fills = len(final["fills"])

    holds = not (duplicates or lost or bare or disagreements) and fills > kills
    return Proof(
        name="kill-worker",
        figure=(
            f"{kills} kills, {len(disagreements)} disagreements, {len(duplicates)} duplicate, {len(lost)} lost orders, "
            f"{len(bare)} unprotected positions ({fills} fills at the venue, {booked} closed trades in the journal)"
        ),
        bar="0, 0, 0, 0",
        holds=holds,
        details=(*disagreements, *lost[:5], *bare[:5], *sorted(duplicates)[:5]),
    )


def _audit(urls: dict[str, str]) -> dict[str, Any]:
    audit: dict[str, Any] = get(f"{urls['sandbox']}/sandbox/audit")
    return audit


def _compare(trades: list[dict[str, Any]], audit: dict[str, Any]) -> tuple[list[str], int]:
    """Return the closed round trips of the venue that the journal lacks, and how many the journal has."""
    closed = [trade for trade in trades if trade.get("closed", trade.get("status") == "CLOSED")]
    at_venue, in_journal = len(audit["trades"]), len(closed)
    missing = [f"{at_venue} round trips at the venue, {in_journal} in the journal"] if at_venue != in_journal else []
    return missing, in_journal
