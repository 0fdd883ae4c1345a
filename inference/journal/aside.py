"""Work on a disk that may hang, in a thread that neither a decision nor the end of the process waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def aside(work: Callable[[], Result]) -> Future[Result]:
    """
    Begin to do some work, and return what it will have come to.

    The pool of `asyncio.to_thread` has to be empty before a process ends: a disk of the network that hangs would keep
    it from ending, and with it the account's lease.
    """
    future: Future[Result] = Future()
    # What runs cannot be called off: whoever stops to wait leaves it to itself.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever asked for it is told
            future.set_exception(error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return future
