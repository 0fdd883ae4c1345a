"""The catalogue as Markdown, for where a repository or a terminal shows it; plots lie beside it."""

from __future__ import annotations

from flows.catalogue.content import Catalogue, Entry

PLOTS = "plots"


def markdown(content: Catalogue, *, candles: str) -> str:
    """Return the text; plots are looked for in the folder `plots` beside it."""
    lines = ["# Feature catalogue", "", f"Generated from the definition. Plots show {candles}.", ""]
    for chapter in content.chapters:
        lines += [f"## {chapter.title}", "", chapter.about, "", f"Fingerprint `{chapter.fingerprint}`.", ""]
        for family in chapter.families:
            lines += [f"### {family.capitalize()}", ""]
            for one in chapter.entries:
                if one.family == family:
                    lines += _entry(one)
    lines += ["## What models read", "", content.input_note, ""]
    lines += [f"- **{one.model}**: {one.reads}." for one in content.consumers]
    lines += ["", "| input | formula | features | read by |", "|---|---|---|---|"]
    for given in content.inputs:
        cells = (f"`{given.name}`", f"`{given.formula}`", ", ".join(given.reads), ", ".join(given.consumers))
        lines.append(f"| {' | '.join(_cell(one) for one in cells)} |")
    return "\n".join([*lines, ""])


def _entry(one: Entry) -> list[str]:
    facts = {
        "formula": f"`{one.formula}`",
        "parameters": one.parameters,
        "lookback": one.lookback,
        "warm-up": one.warm_up,
        "undefined": one.nan_policy,
        "source": one.source,
        "model inputs": ", ".join(f"`{name}`" for name in one.inputs) or "none",
    }
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    return [
        f"#### {one.name}", "", one.tells, "", "| | |", "|---|---|", *rows, "",
        f"![{one.name}]({PLOTS}/{one.name}.svg)", "",
    ]  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
