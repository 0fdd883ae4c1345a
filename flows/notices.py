"""Telling the worker of this home what was decided and found of models, for its journal."""

from __future__ import annotations

from flows.orchestration import say
from flows.settings import FlowSettings
from inference.models.notices import AnyNotice, leave_notice


def announce(settings: FlowSettings, notice: AnyNotice) -> None:
    """Leave a notice in the home; where that fails, say so and go on: the registry holds the decision itself."""
    try:
        leave_notice(settings.verdicts, notice)
    except OSError as error:
        say("The journal of this home will not hold this decision: %s cannot be written (%s)", settings.verdicts, error)
