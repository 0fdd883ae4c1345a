"""What a worker does by a policy that no replay does, in words: figures that leave it out say so."""

from __future__ import annotations

from collections.abc import Mapping


def not_replayed(policy: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence for each way in which a worker by these stated rules may trade otherwise than a replay."""
    names = [name for name in ("committee_mode", "bias_mode", "quality_mode") if str(policy.get(name)) == "enforce"]
    names += [name for name in ("breaker_errors",) if policy.get(name) not in (None, "None")]
    if not names:
        return ()
    return (f"NOT REPLAYED: {' and '.join(names)} may refuse entries of a worker that are made here",)
