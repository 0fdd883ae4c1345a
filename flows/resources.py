"""What a run takes of its machine: processor time and memory, with those of the processes that it started."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from feature_store.clock import monotonic

_OF = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def peak_memory_mb() -> float:
    """Return the most memory that this process, or the largest of its children so far, has had, in MiB."""
    return round(max(resource.getrusage(who).ru_maxrss for who in _OF) / 1024, 1)


@dataclass(frozen=True, slots=True)
class Meter:
    """
    What had been used when something began, to tell what it took once it has ended.

    Both in seconds. Of child processes those count that have ended: workers of a Ray cluster elsewhere do not.
    """

    processor: float
    began: float

    @classmethod
    def start(cls) -> Meter:
        """Begin to measure."""
        return cls(_processor_seconds(), monotonic())

    def figures(self) -> dict[str, float]:
        """
        Return what was taken since then, by name.

        `cpu_seconds` of processor time, which is `cpu_share` of all that the machine's cores had meanwhile (0 to 1),
        and `peak_memory_mb`, in MiB, since the process began: the kernel keeps no peak of a part of it.
        """
        used, passed = _processor_seconds() - self.processor, monotonic() - self.began
        cores = os.cpu_count() or 1
        return {
            "cpu_seconds": round(used, 2),
            "cpu_share": round(min(used / (passed * cores), 1.0), 4) if passed > 0 else 0.0,
            "peak_memory_mb": peak_memory_mb(),
        }


def _processor_seconds() -> float:
    found = [resource.getrusage(who) for who in _OF]
    return sum(one.ru_utime + one.ru_stime for one in found)
