"""Texts of one RSS or Atom feed, whatever state it is in."""

from __future__ import annotations

import calendar
import codecs
import hashlib
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import feedparser

from feature_store.context.observation import TEXTS_POLLED, Observation
from feature_store.context.source import Fetched, SourceError
from feature_store.context.texts import Texts
from feature_store.context.web import Web, folder_name, optional

MOST_ENTRIES = 1_000
_ELEMENT = re.compile(r"<[A-Za-z]")
_BEFORE = re.compile(r"(?:\s|\ufeff|<\?.*?\?>|<!--.*?-->)*", re.DOTALL)
_DOCUMENT_TYPE = "<!DOCTYPE"
_ENTITY = re.compile(r"<!\s*ENTITY", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{0,2000}>")
_STATED = re.compile(rb"""^[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9._-]{1,40})", re.IGNORECASE)
_BYTE_ORDER = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_ENCODINGS = ("utf", "iso8859", "ascii", "cp12", "koi8", "gb", "big5", "shift_jis", "euc_", "latin", "mac_roman")
# What feedparser stumbles over in texts that no feed should hold.
_STUMBLES = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Feed:
    """One feed; an entry counts once, by its id."""

    web: Web
    texts: Texts

    @property
    def name(self) -> str:
        """The feed's host, and a digest of its whole address."""
        digest = hashlib.sha256(self.web.url.encode()).hexdigest()[:8]
        return f"rss-{folder_name(urlsplit(self.web.url).hostname or '')}-{digest}"

    @property
    def topic(self) -> str:
        """What it tells of."""
        return TEXTS_POLLED

    async def fetch(self, now_ms: int, memory: Mapping[str, str]) -> Fetched:
        """
        Ask for what is new since the last answer.

        Raises:
            SourceError: There is no feed there.
        """
        asked = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
        conditions = {header: memory[key] for key, header in asked.items() if key in memory}
        answer = await self.web.get(now_ms=now_ms, headers=conditions)
        if answer.status == 304:
            return Fetched((), memory)
        entries = entries_of(answer.body, answer.headers.get("content-type", ""))
        observations = {entry.item: entry for entry in reversed([self._observed(one) for one in entries])}
        known = {key: value for key in asked if (value := answer.headers.get(key))}
        return Fetched(tuple(reversed(observations.values())), known)

    def _observed(self, entry: Mapping[str, Any]) -> Observation:
        text = _plain(f"{entry.get('title') or ''}. {entry.get('summary') or ''}")
        item = optional(entry.get("id")) or optional(entry.get("link")) or text
        # An id may be anything, a whole page even.
        shown = item if len(item) <= 200 else hashlib.sha256(item.encode("utf-8", "replace")).hexdigest()
        return self.texts.observed(shown, text, _claimed_ms(entry))


def entries_of(content: bytes, content_type: str) -> list[Mapping[str, Any]]:
    """
    Return the entries of a feed.

    A document type never reaches the parser: no feed needs one, and bombs are declared there.

    Raises:
        SourceError: It is no feed, or declares entities.
    """
    text = _root(_decoded(content, content_type))
    body = b'<?xml version="1.0" encoding="utf-8"?>' + text.encode("utf-8", "replace")
    try:
        feed = feedparser.parse(body, response_headers={"content-type": "application/xml; charset=utf-8"})
    except _STUMBLES as error:
        raise SourceError(f"The feed cannot be read ({type(error).__name__})") from error
    if not feed.get("version"):
        raise SourceError(f"Expected an RSS or Atom feed, found a text that begins {text[:60]!r}")
    return list(feed.entries[:MOST_ENTRIES])


def _root(text: str) -> str:
    """Return a document without what comes before its first element."""
    before = _BEFORE.match(text)
    begin = before.end() if before else 0
    if text[begin : begin + len(_DOCUMENT_TYPE)].upper() != _DOCUMENT_TYPE:
        return text[begin:]
    found = _ELEMENT.search(text, begin)
    first = found.start() if found else len(text)
    if _ENTITY.search(text, begin, first):
        raise SourceError("The feed declares entities of its own, which no feed needs; nothing of it was read")
    return text[first:]


def _decoded(content: bytes, content_type: str) -> str:
    for encoding in _encodings(content, content_type):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return content.decode("cp1252", "replace")


def _encodings(content: bytes, content_type: str) -> Iterator[str]:
    """Yield how a feed may be encoded: by its first bytes, its sender, itself; then as most are."""
    yield from (name for mark, name in _BYTE_ORDER if content.startswith(mark))
    stated = _STATED.match(content)
    names = [found[1] for found in [_CHARSET.search(content_type)] if found]
    names += [stated[1].decode("ascii")] if stated else []
    for name in names:
        try:
            known = codecs.lookup(name).name.replace("-", "_")
        except LookupError:
            continue
        if known.startswith(_ENCODINGS):
            yield known
    yield "utf-8"


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _claimed_ms(entry: Mapping[str, Any]) -> int | None:
    for name in ("published_parsed", "updated_parsed"):
        moment = entry.get(name)
        try:
            if moment is not None:
                return calendar.timegm(moment) * 1000
        except (ValueError, OverflowError, TypeError):
            continue
    return None
