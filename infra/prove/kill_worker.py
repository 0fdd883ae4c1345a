"""`kill -9` at random moments: after every restart the journal and the venue agree, nothing doubled, lost or bare."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.domain.events import Event
from infra.prove.practice import SERVERS, point_champion, restless_policy, retrain
from infra.prove.proof import Proof, Size
from infra.prove.record import closed_in, events_in, history_differences, standing_differences
from infra.prove.running_worker import RunningWorker
from infra.prove.stage import ProofError, Stage, get, wait_until

KILLS = {Size.FULL: 20, Size.CI: 6}
SPEED = 120
# A restarted worker may be killed in its first moments too.
LONGEST_LIFE_S = 12.0
# Two readings of a market that moves agree only at a quiet moment; what is lost or doubled agrees at none.
_PATIENCE_S = 60.0

Compare = Callable[[list[Event], dict[str, Any]], list[str]]


def _bare(audit: dict[str, Any]) -> list[str]:
    return [str(one["symbol"]) for one in audit["open_positions"] if not one.get("protected", False)]


def prove(size: Size) -> Proof:
    """Kill and restart a busy worker; after each restart compare what it wrote with what the venue did."""
    kills, rng = KILLS[size], random.Random(20)
    duplicates: set[str] = set()
    bare: list[str] = []
    disagreements: list[str] = []
    with Stage("kill-worker") as stage:
        urls = stage.up(SERVERS, symbols=10, speed=SPEED)
        point_champion(urls["mlflow"], retrain(stage, size="tiny", days=8))
        journal = stage.home / "journal" / "journal.jsonl"
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
            except ProofError:
                bare += [f"kill {kill}: {symbol}" for symbol in _bare(_audit(urls))]
            disagreements += [f"kill {kill}: {one}" for one in _lasting(standing_differences, journal, urls)]
            duplicates |= {str(one) for one in _audit(urls)["duplicate_client_ids"]}
        # What was executed while no worker lived is booked one by one as its trade ends.
        lost = _lasting(history_differences, journal, urls)
        worker.stop()
        final = _audit(urls)
        bare += [f"after SIGTERM: {symbol}" for symbol in _bare(final)]
        duplicates |= {str(one) for one in final["duplicate_client_ids"]}
        verified = stage.qtctl("audit", "verify", "--json", check=False)
        if verified.returncode != 0:
            disagreements.append(f"journal: {verified.stdout.strip()[-300:]}")
        booked = closed_in(events_in(journal))
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
        details=(*disagreements[:5], *lost[:5], *bare[:5], *sorted(duplicates)[:5]),
    )


def _audit(urls: dict[str, str]) -> dict[str, Any]:
    audit: dict[str, Any] = get(f"{urls['sandbox']}/sandbox/audit")
    return audit


def _lasting(compare: Compare, journal: Path, urls: dict[str, str]) -> list[str]:
    """Return the differences that no quiet moment removed."""
    found: list[str] = []

    def agree() -> bool:
        nonlocal found
        found = compare(events_in(journal), _audit(urls))
        return not found

    try:
        wait_until(agree, seconds=_PATIENCE_S, what="journal and venue to agree")
    except ProofError:
        return found
    return []
