"""`qtctl sandbox rules`: how easily orders fill, and how long messages take."""

from __future__ import annotations

from infra.sandbox.asking import AsJson, Url, ask, asking, show

RULES_HELP = asking(
    "qtctl sandbox rules",
    "qtctl sandbox rules --insert-ms 80 --cancel-ms 120 --feed-ms 50",
    "qtctl sandbox rules --participation 0.1 --impact-bps 15",
    "qtctl sandbox rules --touch-probability 0.2 --queue",
)


def rules(
    *,
    url: Url = None,
    touch_probability: str | None = None,
    participation: str | None = None,
    impact_bps: str | None = None,
    queue: bool | None = None,
    insert_ms: int | None = None,
    cancel_ms: int | None = None,
    feed_ms: int | None = None,
    json: AsJson = False,
) -> None:
    """Print how easily orders fill and how long messages take, after changing what is named.

    All of it is off in a new venue and after `qtctl sandbox fault --op clear`, and is kept with a venue's state.

    Parameters
    ----------
    touch_probability
        How often a price that only touches a limit fills it, 0 (never) to 1. By default as it is.
    participation
        Share of the volume between two ticks that the account may trade; 0: any. By default as it is.
    impact_bps
        How far taking all of it moves the price; less moves it by its root. By default as it is.
    queue
        Whether a limit waits until what was displayed before it has been traded. By default as it is.
    insert_ms
        Milliseconds of venue time until an order, or a change of one, reaches the engine. By default as it is.
    cancel_ms
        Milliseconds of venue time until a cancellation reaches the engine; a fill may be faster. By default as it is.
    feed_ms
        Milliseconds of venue time until frames of the streams reach their readers. By default as it is.
    json
        Print compact JSON, on one line.
    """
    body = {
        "op": "rules", "touch_probability": touch_probability, "participation": participation,
        "impact_bps": impact_bps, "queue": queue, "insert_ms": insert_ms, "cancel_ms": cancel_ms, "feed_ms": feed_ms,
    }  # fmt: skip
    show(ask(url, "/sandbox/ctl", body), compact=json)
