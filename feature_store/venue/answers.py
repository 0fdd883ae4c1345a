"""What is known of the answer that a failed request got: ccxt's errors carry neither its status nor its headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

_ATTRIBUTE = "venue_answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, and how its body begins."""

    status: int
    headers: Mapping[str, str]
    begins: str = ""

    def header(self, name: str) -> str | None:
        """Return a header, however it is spelled."""
        return next((str(value) for key, value in self.headers.items() if key.lower() == name.lower()), None)


_BEGINNING = 200
_BANNED_UNTIL = re.compile(r"banned until ([0-9]{13})(?![0-9])")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")


def plain_number(text: str | None) -> float | None:
    """Return a number as a header says it; None for a date, and for whatever is not plain digits."""
    found = _NUMBER.fullmatch((text or "").strip())
    return None if found is None else float(found.group())


def banned_for_s(text: str, now_ms: float) -> float | None:
    """Return for how long an answer's words ban this address, at least a second; None where they ban nobody."""
    found = _BANNED_UNTIL.search(text)
    return None if found is None else max(1.0, (int(found.group(1)) - now_ms) / 1000)


# One for each task: of two requests under way, each sees its own answer, and not the client's last one.
_HEARD: ContextVar[Answer | None] = ContextVar("venue_answer", default=None)


def keep_answers(exchange: Any) -> None:
    """Let the errors of a client carry the answer that they were made of; requests and results stay as they are."""
    fetch, on_response = exchange.fetch, exchange.on_rest_response

    async def fetch_and_keep(*arguments: Any, **named: Any) -> Any:
        _HEARD.set(None)
        try:
            return await fetch(*arguments, **named)
        except Exception as error:
            setattr(error, _ATTRIBUTE, _HEARD.get())
            raise

    def on_rest_response(code: int, reason: str, url: str, method: str, headers: Any, *rest: Any) -> Any:
        _HEARD.set(Answer(int(code), dict(headers or {}), str(rest[0])[:_BEGINNING] if rest else ""))
        return on_response(code, reason, url, method, headers, *rest)

    exchange.fetch = fetch_and_keep
    exchange.on_rest_response = on_rest_response


def answer_of(error: BaseException) -> Answer | None:
    """Return the answer that an error was made of; None where there was none, or nobody kept it."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Answer) else None
