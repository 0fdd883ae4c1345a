"""How well a worker is, in five levels."""

from __future__ import annotations

from enum import StrEnum


class HealthLevel(StrEnum):
    """All is well, as usual, minor trouble, major trouble, and failure of the system."""

    OPTIMAL = "OPTIMAL"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    CRITICAL = "CRITICAL"
    EMERGENCY = "EMERGENCY"
