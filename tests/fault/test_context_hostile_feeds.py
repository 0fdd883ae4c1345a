"""Feeds that mean harm, or are only broken: nothing they hold costs more than themselves."""

from __future__ import annotations

import gzip
import json

import pytest

from feature_store.context.rss import MOST_ENTRIES, Feed, entries_of
from feature_store.context.source import SourceError
from feature_store.context.web import Web
from tests.context_support import NOW_MS, TEXTS, no_pause, rss, says, web_double
from tests.feature_support import python

XML = "application/xml"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BODY = "<rss version='2.0'><channel><item><guid>a</guid><title>{}</title></item></channel></rss>"
BOMBS = {
    "a billion laughs": f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>' + BODY.format("&l11;"),
    "one long entity, often": f'<!DOCTYPE r [<!ENTITY l0 "{"x" * 100_000}">]>' + BODY.format("&l0;" * 10_000),
    "a parameter entity": '<!DOCTYPE r [<!ENTITY % a SYSTEM "file:///etc/passwd">%a;]>' + BODY.format("x"),
    "a file of ours": '<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + BODY.format("&a;"),
    "lower case and line breaks": '<!doctype r [\n<!-- c -->\n<!\nentity a "b">\n]>' + BODY.format("&a;"),
    "behind a comment": f'<!-- <rss> --><!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>' + BODY.format("&l11;"),
    "behind an instruction": f'<?x <rss> ?><!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>' + BODY.format("&l11;"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_entities_are_refused_unread(bomb, encoding):
    """Whoever declares entities is refused before a parser sees them, in any encoding."""
    with pytest.raises(SourceError, match="declares entities"):
        entries_of(BOMBS[bomb].encode(encoding), XML)


TRICKS = ["<a> --> ", "<a/>", "<!DOCTYPE r [<!-- <x> -->", "<!DOCTYPE r []>", "\x00", "<!>", "<?x", "<!--"]
READER = """
import json, resource, sys
from feature_store.context.rss import entries_of
from feature_store.context.source import SourceError
with open("/proc/self/statm") as statm:
    mapped = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 256 * 2**20,) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
sizes = []
for text in json.load(open(sys.argv[1])):
    try:
        sizes.append(sum(len(str(dict(one))) for one in entries_of(text.encode(), "text/xml")))
    except SourceError:
        sizes.append(0)
print(json.dumps(sizes))
"""


def sizes_of(tmp_path, texts) -> list[int]:
    """Read feeds in a process of little memory and time, and return how much came of each."""
    (tmp_path / "feeds.json").write_text(json.dumps(texts))
    return json.loads(python(READER, str(tmp_path / "feeds.json")))


def test_bombs_behind_tricks_do_not_go_off(tmp_path):
    """Whatever is put before declarations, a process with 256 MiB to spare reads the feed, and nothing grows."""
    bombs = [BOMBS["a billion laughs"].partition("?>")[2], BOMBS["one long entity, often"][:200_000]]
    texts = [trick + bomb for trick in TRICKS for bomb in bombs]
    sizes = sizes_of(tmp_path, texts)
    assert len(sizes) == len(texts)
    assert all(size <= 20 * len(text) for size, text in zip(sizes, texts, strict=True))


def test_noise_ends(tmp_path):
    """A hundred thousand signs of nonsense are no feed, or an empty one, and do not hang."""
    signs = ["<", "&", "<a ", "<item>", "<!--", "<![CDATA[", "]]>", '"', "<rss><channel>" + "<a>" * 50]
    assert len(sizes_of(tmp_path, [sign * (100_000 // len(sign)) for sign in signs])) == len(signs)


@pytest.mark.parametrize(
    ("content", "content_type", "title"),
    [
        (rss(("a", "Café 日本", "")).encode(), XML, "Café 日本"),
        (rss(("a", "Café", "")).encode("iso-8859-1"), "text/xml; charset=iso-8859-1", "Café"),
        (rss(("a", "Café", "")).replace("?>", ' encoding="iso-8859-1"?>').encode("iso-8859-1"), XML, "Café"),
        (rss(("a", "Café", "")).encode("cp1252"), XML, "Café"),
        (rss(("a", "Café", "")).encode("utf-16"), "text/xml; charset=utf-8", "Café"),
        (rss(("a", "Café", "")).encode(), "text/xml; charset=ebcdic-of-mars", "Café"),
        (rss(("a", "Café", "")).replace("?>", ' encoding="zip"?>').encode(), "text/xml; charset=idna", "Café"),
        (rss(("a", "&amp;#x42;&lt;b&gt;oo&lt;/b&gt;", "")).encode(), XML, None),
    ],
)
def test_encodings(content, content_type, title):
    """A feed is read in the encoding it is in, whatever it or its sender says; where nothing fits, as most are."""
    (entry,) = entries_of(content, content_type)
    assert title is None or entry["title"] == title


@pytest.mark.parametrize(
    "content",
    [
        rss(("a", "Profit & loss <b>soar", "")),
        rss(("a", "good", ""))[:-30],
        rss(("a", "nul \x00 and bell \x07", "")),
        rss(("a", "good", "")).replace("</guid>", ""),
        "\n\n  " + rss(("a", "good", "")),
        rss(("a", "&nbsp;&unknown; good", "")),
    ],
)
def test_broken_feeds_are_read_as_far_as_they_go(content):
    """An unescaped sign, a missing end, signs that XML forbids: there is an entry all the same."""
    assert len(entries_of(content.encode(), XML)) == 1


async def test_huge_texts_and_many_entries_are_bounded():
    """A novel as a title, ids of a megabyte, a thousand and one entries: bounded, and scored in no time."""
    many = rss(*[(f"{n}", "good", "") for n in range(MOST_ENTRIES + 50)])
    long = rss(("i" * 1_000_000, "great " * 200_000, ""))
    async with web_double() as server:
        server.answers |= {"/many": says(many), "/long": says(long)}
        fetched = await Feed(Web(f"{server.url}/many", pause=no_pause), TEXTS).fetch(NOW_MS, {})
        assert len(fetched.observations) == MOST_ENTRIES
        (one,) = (await Feed(Web(f"{server.url}/long", pause=no_pause), TEXTS).fetch(NOW_MS, {})).observations
    assert len(one.item) == 64
    assert one.figures[0].value > 0.9


async def test_a_packed_bomb_is_cut_off():
    """A kilobyte that unpacks to a gigabyte is left at eight megabytes."""
    packed = gzip.compress(bytes(60 * 2**20))
    async with web_double() as server:
        server.answers["/news"] = says(packed, Content_Encoding="gzip")
        with pytest.raises(SourceError, match=r"more than 8192 KiB|no whole answer"):
            await Feed(Web(f"{server.url}/news", pause=no_pause), TEXTS).fetch(NOW_MS, {})
