"""The report as one HTML file that needs nothing else: styles and pictures are in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from training.compare.markdown import introduction
from training.compare.plots import Picture
from training.compare.report import Report
from training.compare.tables import Table, tables

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1 { line-height: 1.2; }
pre, .wide { overflow-x: auto; }
pre { background: rgb(127 127 127 / 15%); padding: .75rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { border-bottom: 1px solid rgb(127 127 127 / 40%); padding: .3rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1.5rem 0; }
img { background: white; height: auto; max-width: 100%; }
li { overflow-wrap: anywhere; }
"""


def write(report: Report, pictures: Sequence[Picture]) -> str:
    """The whole document."""
    title = escape(f"Comparison on {report.card.name}")
    body = [f"<h1>{title}</h1>", f"<pre>{escape(report.command)}</pre>"]
    body += [f"<p>{escape(paragraph)}</p>" for paragraph in introduction(report)]
    body += [_table(table) for table in tables(report)]
    body += [_figure(picture) for picture in pictures]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in table.heads[1:])
    rows = []
    for at, (name, *cells) in enumerate(table.rows):
        written = "".join(
            f"<td><strong>{escape(cell)}</strong></td>" if (at, place) in table.best else f"<td>{escape(cell)}</td>"
            for place, cell in enumerate(cells, start=1)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{written}</tr>')
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    head = f"<thead><tr><td></td>{heads}</tr></thead>"
    body = "\n".join(["<tbody>", *rows, "</tbody>"])
    below = f"\n<ul>{notes}</ul>" if notes else ""
    return f'<h2>{escape(table.title)}</h2>\n<div class="wide">\n<table>\n{head}\n{body}\n</table>\n</div>{below}'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.file.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(picture.text)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
    )
