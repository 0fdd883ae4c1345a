"""The catalogue as one HTML file that needs nothing else: no script, font or picture from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from flows.catalogue.content import FAMILY_COLOURS, OTHER_COLOUR, Catalogue, Chapter, Entry

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6675;--paper:#fbfbf9;--card:#fff;--edge:#e2e4e8;--code:#f2f3f5}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa5b4;--paper:#14181e;--card:#1b2028;--edge:#2c3440;
--code:#232a34}}
*{box-sizing:border-box}html{scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 ui-sans-serif,system-ui,sans-serif}
main,header{max-width:1180px;margin:0 auto;padding:0 24px}header{padding-top:44px}
h1{font-size:32px;line-height:1.15;margin:0 0 8px;letter-spacing:-.02em}
h2{font-size:23px;margin:52px 0 6px;letter-spacing:-.01em}h3{margin:0;font-size:17px}
p{max-width:76ch}.soft{color:var(--soft)}
code,.formula{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.88em}
.formula{display:block;background:var(--code);border-radius:6px;padding:8px 10px;margin:10px 0;overflow-wrap:anywhere}
.facts{display:flex;gap:28px;flex-wrap:wrap;margin:18px 0}.facts b{display:block;font-size:22px}
.hero,.card{background:var(--card);border:1px solid var(--edge);border-radius:12px;padding:16px 18px}
svg{display:block;width:100%;height:auto;color:var(--soft)}svg .zero{stroke:currentColor;stroke-dasharray:3 4;
stroke-opacity:.55}
nav{position:sticky;top:0;z-index:1;background:var(--paper);border-bottom:1px solid var(--edge);padding:10px 0;
margin-top:28px}
nav input{font:inherit;color:inherit;background:var(--card);border:1px solid var(--edge);border-radius:8px;
padding:6px 10px;width:240px;max-width:100%}
nav a{color:inherit;text-decoration:none;font-size:13px;white-space:nowrap;margin-left:14px;border-bottom:2px solid}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(520px,100%),1fr));gap:18px;margin-top:16px}
.card{border-top:4px solid var(--tone);scroll-margin-top:64px}
.chip{float:right;font-size:12px;color:var(--tone);border:1px solid;border-radius:99px;padding:0 9px}
dl{display:grid;grid-template-columns:auto 1fr;gap:3px 14px;margin:12px 0 0;font-size:13.5px}
dt{color:var(--soft)}dd{margin:0}a.to{color:inherit}
table{border-collapse:collapse;width:100%;font-size:13.5px;margin-top:12px}
th,td{text-align:left;padding:7px 10px;border-bottom:1px solid var(--edge);vertical-align:top}
tr:target,.card:target{outline:2px solid var(--tone,#0072B2)}.wide{overflow-x:auto}footer{padding:48px 0}
@media print{nav{display:none}.card{break-inside:avoid}}
"""

_SCRIPT = """
window.onerror = message => { document.body.dataset.error = message; };
const wanted = document.getElementById('wanted');
wanted.addEventListener('input', () => {
  const words = wanted.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const one of document.querySelectorAll('.card, tbody tr')) {
    const text = one.textContent.toLowerCase();
    one.hidden = !words.every(word => text.includes(word));
  }
});
// A page that is opened as features.html?find=rsi shows just that.
wanted.value = new URLSearchParams(location.search).get('find') || '';
wanted.dispatchEvent(new Event('input'));
document.body.dataset.ready = document.querySelectorAll('.card:not([hidden])').length;
"""


def page(content: Catalogue, plots: Mapping[str, str], *, market: str, candles: str) -> str:
    """
    Return the page.

    Args:
        content: What there is to say.
        plots: SVG by feature name.
        market: SVG of the candles that the plots show.
        candles: Where these candles come from, in words.
    """
    first = content.chapters[0]
    families = "".join(
        f'<a href="#{_anchor(first, family)}" style="border-color:{_tone(family)}">{escape(family)}</a>'
        for family in first.families
    )
    others = "".join(f'<a href="#{_anchor(one)}">{escape(one.title)}</a>' for one in content.chapters[1:])
    names = ", ".join(one.title for one in content.chapters)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>Feature catalogue</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>'
        f"<header><h1>Feature catalogue</h1><p class=soft>{escape(names)}, generated from their definition. "
        f"Plots show {escape(candles)}.</p>"
        f"<div class=facts><span><b>{len(first.entries)}</b>features</span><span><b>{len(first.families)}</b>families"
        f"</span><span><b>{len(content.inputs)}</b>model inputs</span>"
        f"<span><b><code>{first.fingerprint[:12]}</code></b>fingerprint</span></div>"
        f"<div class=hero>{market}</div></header><main>"
        f'<nav><input id=wanted type=search placeholder="Find: rsi, volume, Wilder" aria-label="Find a feature">'
        f'{families}{others}<a href="#inputs">model inputs</a></nav>'
        f"{''.join(_chapter(one, plots) for one in content.chapters)}{_inputs(content)}"
        f"<footer class=soft>Fingerprint <code>{first.fingerprint}</code>. A model bundle, a feature file or a state "
        f"with another one is refused.</footer></main><script>{_SCRIPT}</script></body></html>\n"
    )


def _chapter(chapter: Chapter, plots: Mapping[str, str]) -> str:
    parts = [
        f'<section><h2 id="{_anchor(chapter)}">{escape(chapter.title)}</h2><p class=soft>{escape(chapter.about)}</p>'
    ]
    for family in chapter.families:
        cards = "".join(_card(one, plots) for one in chapter.entries if one.family == family)
        parts.append(
            f'<h2 id="{_anchor(chapter, family)}">{escape(family.capitalize())}</h2><div class=grid>{cards}</div>'
        )
    return "".join([*parts, "</section>"])


def _card(one: Entry, plots: Mapping[str, str]) -> str:
    facts = {
        "parameters": escape(one.parameters),
        "lookback": escape(one.lookback),
        "warm-up": escape(one.warm_up),
        "undefined": escape(one.nan_policy),
        "source": escape(one.source),
        "model inputs": ", ".join(f'<a class=to href="#input-{name}">{name}</a>' for name in one.inputs) or "none",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    name = escape(one.name)
    return (
        f'<article class=card id="{name}" data-feature="{name}" style="--tone:{_tone(one.family)}">'
        f"<span class=chip>{escape(one.family)}</span><h3><code>{name}</code></h3><p>{escape(one.tells)}</p>"
        f"<span class=formula>{escape(one.formula)}</span>{plots[one.name]}<dl>{rows}</dl></article>"
    )


def _inputs(content: Catalogue) -> str:
    rows = "".join(
        f'<tr id="input-{escape(one.name)}"><td><code>{escape(one.name)}</code></td>'
        f"<td><code>{escape(one.formula)}</code></td>"
        f"<td>{', '.join(f'<a class=to href=#{name}>{name}</a>' for name in one.reads)}</td>"
        f"<td>{escape(', '.join(one.consumers))}</td></tr>"
        for one in content.inputs
    )
    models = "".join(f"<dt>{escape(one.model)}</dt><dd>{escape(one.reads)}</dd>" for one in content.consumers)
    return (
        f"<section><h2 id=inputs>What models read</h2><p class=soft>{escape(content.input_note)}</p><dl>{models}</dl>"
        f"<div class=wide><table><thead><tr><th>input<th>formula<th>features<th>read by</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _tone(family: str) -> str:
    return FAMILY_COLOURS.get(family, OTHER_COLOUR)


def _anchor(chapter: Chapter, family: str = "") -> str:
    words = f"{chapter.title} {family}".lower()
    return "-".join("".join(one if one.isalnum() else " " for one in words).split())
