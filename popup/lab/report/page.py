"""One self-contained HTML page: the answer, the table, the pictures, further tables. Light and dark, wide and narrow; tables sort
at a click. Works from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from popup.lab.program import program
from popup.lab.report.look import GROUND, INK, NIGHT, night_rules

NARROW = "48rem"  # of a window that is too narrow for wide pictures

STYLE = f"""
:root {{ color-scheme: light dark; --ground: {GROUND}; --ink: {INK}; --line: #d5d5d5; --soft: #f4f4f2; --quiet: #595959; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: {NIGHT[GROUND]}; --ink: {NIGHT[INK]}; --line: #3a3f45; --soft: #20242a; --quiet: #a8a8a8; }} }}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }} h2 {{ font-size: 1.15rem; margin-top: 2.5rem; }}
p, figcaption, dd, .note {{ max-width: 46rem; }}
.answer {{ font-size: 1.1rem; }}
.warning {{ border-left: 4px solid #d55e00; padding-left: 0.8rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; font-size: 0.9rem; }}
dt {{ color: var(--quiet); }} dd {{ margin: 0; overflow-wrap: anywhere; }}
code {{ font: 0.95em ui-monospace, monospace; }}
.scroll {{ overflow-x: auto; max-width: 100%; }}
.note, figcaption {{ color: var(--quiet); font-size: 0.9rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85rem; }}
th, td {{ padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }}
th.words, td.words {{ text-align: left; }}
th {{ background: var(--soft); cursor: pointer; user-select: none; }}
th[aria-sort=ascending]::after {{ content: " \\25b2"; }} th[aria-sort=descending]::after {{ content: " \\25bc"; }}
tbody tr:hover {{ background: var(--soft); }}
figure {{ margin: 1rem 0; }} figure svg {{ max-width: 100%; height: auto; display: block; }}
.narrow {{ display: none; }}
@media (max-width: {NARROW}) {{ .wide {{ display: none; }} .narrow {{ display: block; }} body {{ margin: 1rem auto; }}
  dl {{ grid-template-columns: 1fr; gap: 0; }} dd {{ margin-bottom: 0.5rem; }}
  table {{ font-size: 0.8rem; }} th, td {{ padding: 0.2rem 0.3rem; }} th {{ white-space: normal; vertical-align: bottom; }} }}
pre {{ background: var(--soft); padding: 0.7rem; overflow-x: auto; }}
{night_rules("figure")}
"""

SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  head.tabIndex = 0;
  const sort = () => {
    const body = head.closest("table").tBodies[0], place = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = row => { const text = row.cells[place].textContent.replace("<", "").trim(), number = parseFloat(text);
      return Number.isNaN(number) ? text : number; };
    const order = (a, b) => { const x = key(a), y = key(b);
      return typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : (typeof x === "number" ? -1 : 1); };
    const rows = [...body.rows].sort((a, b) => up ? order(a, b) : order(b, a));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""


@dataclass(frozen=True)
class Shown:
    """A picture of the page: SVG text for a wide and for a narrow window, or where there is nothing to draw a sentence alone."""

    title: str
    caption: str
    wide: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()  # what each of them shows, in words


@dataclass(frozen=True)
class Page:
    """What a page says. `tables`: (title, header, rows)."""

    title: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    answer: Sequence[str]
    tables: Sequence[tuple[str, list[str], list[list[str]]]]
    pictures: Sequence[Shown]
    failures: Sequence[str]

    def html(self) -> str:
        """The page: the first table stands before the pictures, the others behind them."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        parts += [f'<p class="warning">{escape(text)}</p>' for text in self.warnings]
        parts += [f'<p class="answer">{escape(" ".join(self.answer))}</p>'] if self.answer else []
        parts += [_facts(self.facts)] + [_table(*part) for part in self.tables[:1]]
        parts += [_picture(picture, number) for number, picture in enumerate(self.pictures)]
        parts += [_table(*part) for part in self.tables[1:]]
        parts += [f"<h2>Failures</h2><pre>{escape(text)}</pre>" for text in self.failures]
        body = "\n".join(parts)
        return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(self.title)}</title>'
                f"<style>{STYLE}</style></head><body>\n{body}\n<script>{SCRIPT}</script></body></html>\n")


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    told = [(escape(name), f"<code>{escape(text)}</code>" if text.split(" --")[0] == program() else escape(text))
            for name, text in facts]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in told)}</dl>"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title says in parentheses, or behind a semicolon, how to read the table: that is a note below the heading."""
    name, mark, more = re.findall(r"([^(;]*)([(;]?)(.*)", title, re.S)[0]
    note = f'<p class="note">{escape((mark if mark == "(" else "") + more.strip())}</p>' if more else ""
    words = [not any(re.match(r"[-<]?\d|-$", row[place]) for row in rows) for place in range(len(header))]
    looks = [' class="words"' if one else "" for one in words]
    head = "".join(f'<th scope="col"{look}>{escape(cell)}</th>' for cell, look in zip(header, looks, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td{look}>{escape(cell)}</td>" for cell, look in zip(row, looks, strict=True)) + "</tr>"
                     for row in rows)
    return (f'<h2>{escape(name.strip())}</h2>{note}<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def _picture(picture: Shown, number: int) -> str:
    heading = f"<h2>{escape(picture.title)}</h2>"
    if not picture.wide:
        return f"{heading}<p>{escape(picture.caption)}</p>"
    drawn = "".join(f'<div class="{name}" role="img" aria-label="{escape(words)}">{_inline(svg, f"{name}{number}-{place}")}</div>'
                    for name, pictures in (("wide", picture.wide), ("narrow", picture.narrow))
                    for place, (svg, words) in enumerate(zip(pictures, picture.alternatives, strict=True)))
    return f"{heading}<figure>{drawn}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def _inline(svg: str, name: str) -> str:
    """The SVG element alone, its ids made the page's own so that two pictures cannot share one."""
    element = svg[svg.index("<svg"):]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", element)
