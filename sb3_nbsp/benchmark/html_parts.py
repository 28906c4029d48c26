"""Pieces of HTML; every text that is given to them is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def items(texts: Iterable[str]) -> str:
    """
    :param texts: plain texts
    :return: a list of them
    """
    return "<ul>\n" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "\n</ul>"


def definitions(texts: Mapping[str, str]) -> str:
    """
    :param texts: plain texts by their names
    :return: a list of definitions
    """
    return "<dl>\n" + "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in texts.items()) + "\n</dl>"


def table(caption: str, header: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """
    :param caption: plain text
    :param header: plain texts of the first line
    :param rows: the further lines: the plain text at the head of each, and its cells as HTML (see :func:`table_cell`)
    :return: a table
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "\n".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)
    return (
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    )


def table_cell(text: str, css_class: str = "") -> str:
    """
    :param text: plain text
    :param css_class: class of the cell
    :return: a cell of a table
    """
    return f'<td class="{escape(css_class)}">{escape(text)}</td>' if css_class else f"<td>{escape(text)}</td>"


def scroll(content: str) -> str:
    """
    :param content: HTML that can be wider than the page
    :return: a box in which it can be scrolled, by keyboard too
    """
    return f'<div class="scroll" tabindex="0" role="group" aria-label="Table">\n{content}\n</div>'


def section(name: str, title: str, content: str) -> str:
    """
    :param name: what links to it use
    :param title: plain text
    :param content: HTML
    :return: a section of the page
    """
    return f'<section id="{escape(name)}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'
