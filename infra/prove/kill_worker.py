"""`kill -9` at random moments: after every restart the journal and the venue agree, nothing doubled, lost or bare."""

from __future__ import annotations

import json
import random
import time
from decimal import Decimal
from pathlib import Path
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
        lost, booked = _compare(stage.home / "journal" / "journal.jsonl", final)
        fills = int(final["fills"])

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


def _compare(journal: Path, audit: dict[str, Any]) -> tuple[list[str], int]:
    """Return where the journal's executions, positions and round trips differ from the venue's, and its round trips."""
    fills: dict[tuple[str, str], Decimal] = {}
    closed = set()
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["type"] == "trade.filled":
            fill = entry["data"]["fill"]
            signed = Decimal(fill["quantity"]) * (1 if fill["side"] == "BUY" else -1)
            fills[fill["symbol"], fill["fill_id"]] = signed
        elif entry["type"] == "trade.closed":
            closed.add(entry["data"]["trade_id"])
    held: dict[str, Decimal] = {}
    for (symbol, _), signed in fills.items():
        native = symbol.split(":", maxsplit=1)[0].replace("/", "")
        held[native] = held.get(native, Decimal(0)) + signed
    ours = {symbol: quantity for symbol, quantity in held.items() if quantity}
    theirs = {str(one["symbol"]): Decimal(one["quantity"]) for one in audit["open_positions"]}
    found = []
    if len(fills) != int(audit["fills"]):
        found.append(f"{audit['fills']} executions at the venue, {len(fills)} in the journal")
    if len(closed) != len(audit["trades"]):
        found.append(f"{len(audit['trades'])} round trips at the venue, {len(closed)} in the journal")
    if ours != theirs:
        found.append(f"positions at the venue {theirs}, in the journal {ours}")
    return found, len(closed)
