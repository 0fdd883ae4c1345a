"""Posts of a social network that answers as X does: recent search of its API, version 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from feature_store.context.observation import TEXTS_POLLED
from feature_store.context.source import Fetched, SourceError
from feature_store.context.texts import Texts
from feature_store.context.web import Web

PAGE = 100
LONGEST_QUERY = 512
_MOST_PAGES = 10
_REMEMBERED_MS = 6 * 86_400_000
"""Seven days back is as far as recent search goes; an older mark would be refused."""


class _Post(msgspec.Struct, frozen=True):
    id: str
    text: str
    created_at: str | None = None
    edit_history_tweet_ids: tuple[str, ...] = ()


class _Meta(msgspec.Struct, frozen=True):
    newest_id: str | None = None
    next_token: str | None = None


class _Page(msgspec.Struct, frozen=True):
    meta: _Meta
    data: tuple[_Post, ...] = ()


@dataclass(frozen=True, slots=True)
class Posts:
    """The posts that a query finds; an edited one is the same item, told anew."""

    web: Web
    query: str
    texts: Texts

    @property
    def name(self) -> str:
        """There is one."""
        return "social"

    @property
    def topic(self) -> str:
        """What it tells of."""
        return TEXTS_POLLED

    async def fetch(self, now_ms: int, memory: Mapping[str, str]) -> Fetched:
        """
        Ask for the posts since the last answer, page by page; all pages or none.

        Raises:
            SourceError: A page did not come, or not as it should.
        """
        params = {"query": self.query, "max_results": str(PAGE), "tweet.fields": "created_at"}
        if _is_fresh(memory, now_ms):
            params["since_id"] = memory["since_id"]
        posts: list[_Post] = []
        tokens: set[str] = set()
        newest = memory.get("since_id", "")
        for _ in range(_MOST_PAGES):
            answer = await self.web.get("/tweets/search/recent", now_ms=now_ms, params=params)
            page = self.web.document(answer.body, _Page)
            posts += page.data
            newest = max(newest, page.meta.newest_id or "", key=_number)
            token = page.meta.next_token
            if not token:
                break
            if token in tokens:
                raise SourceError("The social feed leads in a circle: it named the same next page twice")
            tokens.add(token)
            params = {**params, "next_token": token}
        # The newest edit of a post comes first.
        told = [
            self.texts.observed(
                (one.edit_history_tweet_ids or (one.id,))[0],
                one.text,
                claimed_ms := _moment_ms(one.created_at),
                first_ms=claimed_ms,  # An edit, which is claimed anew, comes within the hour.
            )
            for one in sorted(posts, key=lambda post: _number(post.id), reverse=True)
        ]
        return Fetched(tuple(told), {"since_id": newest, "since_ms": str(now_ms)} if newest else {})


def _is_fresh(memory: Mapping[str, str], now_ms: int) -> bool:
    since_ms = memory.get("since_ms", "")
    return "since_id" in memory and since_ms.isdecimal() and now_ms - int(since_ms) < _REMEMBERED_MS


def _number(text: str) -> int:
    return int(text[:30]) if text.isdecimal() and text.isascii() else -1


def _moment_ms(text: str | None) -> int | None:
    try:
        moment = datetime.fromisoformat(text or "")
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
