"""The flow that makes the next model: ingest, features, train, shadow, promote."""

from __future__ import annotations

import asyncio
import json

import msgspec
from prefect import flow

from flows.features import features
from flows.ingest import ingest
from flows.orchestration import ProgressBar, markdown, named_by_series, say, table
from flows.outcome import Promotion
from flows.promote import promote
from flows.registry import Registry
from flows.settings import FlowSettings, TimeframeName, TrainingSize, VenueName
from flows.shadow import shadow
from flows.train import train


@flow(name="retrain", flow_run_name=named_by_series, timeout_seconds=3 * 3600 + 1800)
def retrain(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
) -> Promotion:
    """
    Make a candidate from the venue's newest candles, judge it, and let it trade if every gate is held.

    A refused candidate is a result, not a failure: artifact `retrain-result` says which gates it did not hold.

    Args:
        venue: Where candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all`. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How many days of candles to train and judge on. Left empty: QT_DAYS, by default 30.
        size: How long the members train: `full`, `quick`, or `tiny` for trying the machinery. Left empty: QT_SIZE.
    """
    bar = ProgressBar("retrain", "Retrain")
    asyncio.run(ingest(venue=venue, symbols=symbols, timeframe=timeframe, days=days))
    bar.show(0.15, "candles are up to date")
    features(venue=venue, symbols=symbols, timeframe=timeframe)
    bar.show(0.2, "features are stored")
    candidate = train(venue=venue, symbols=symbols, timeframe=timeframe, days=days, size=size)
    bar.show(0.8, f"version {candidate.version} is registered")
    shadow(version=candidate.version)
    bar.show(0.95, f"version {candidate.version} is scored in shadow")
    result = promote(version=candidate.version)
    bar.show(1.0, "judged")
    _publish(result)
    return result


def _publish(result: Promotion) -> None:
    settings = FlowSettings.of()
    registry = Registry(settings.registry_address)
    pages = registry.links(registry.version(result.version), settings.registry_page)
    table("retrain-result", [msgspec.to_builtins(result)], f"How this retraining ended. {pages}")
    verdict = "promoted: it trades now" if result.promoted else "refused"
    reasons = "\n".join(f"- {reason}" for reason in result.reasons)
    markdown(
        "retrain-summary",
        f"## Version {result.version} was {verdict}\n\n{reasons}\n\n"
        f"{pages}\n\n"
        f"```json\n{json.dumps(msgspec.to_builtins(result), indent=2)}\n```",
        "What came of the retraining, with the way to its evidence",
    )
    say("Version %s was %s", result.version, verdict)
