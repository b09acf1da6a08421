"""One self-contained HTML page: tables that sort at a click, pictures inline, light and dark. Works from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1a1a; --line: #d5d5d5; --soft: #f4f4f2; --link: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --ink: #e8e6e3; --line: #3a3f45; --soft: #20242a; --link: #56b4e9; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85rem; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); cursor: pointer; user-select: none; position: sticky; top: 0; }
th[aria-sort=ascending]::after { content: " \\25b2"; } th[aria-sort=descending]::after { content: " \\25bc"; }
tbody tr:hover { background: var(--soft); }
figure { margin: 1rem 0; padding: 0.5rem; background: #fff; border: 1px solid var(--line); border-radius: 6px;
  display: inline-block; max-width: 100%; box-sizing: border-box; }
figure svg { max-width: 100%; height: auto; display: block; }
pre { background: var(--soft); padding: 0.7rem; overflow-x: auto; }
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


def render(tables: Sequence[tuple[str, list[str], list[list[str]]]], pictures: Sequence[tuple[str, str]],
           verdicts: Sequence[str], failures: Sequence[str], runs: int) -> str:
    """The page. `tables`: (title, header, rows); `pictures`: (title, SVG text)."""
    parts = [f"<h1>Strong lottery tickets: {runs} runs</h1>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in verdicts]
    parts += [f"<h2>{escape(title)}</h2><figure>{_inline(svg, index)}</figure>" for index, (title, svg) in enumerate(pictures)]
    parts += [_table(*part) for part in tables]
    parts += [f"<h2>Failures</h2><pre>{escape(text)}</pre>" for text in failures]
    body = "\n".join(parts)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>popup report</title>'
            f"<style>{STYLE}</style></head><body>\n{body}\n<script>{SCRIPT}</script></body></html>\n")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (f'<h2>{escape(title)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


def _inline(svg: str, index: int) -> str:
    """The SVG element alone, its ids made the page's own so that two pictures cannot share one."""
    element = svg[svg.index("<svg"):]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>picture{index}-", element)
