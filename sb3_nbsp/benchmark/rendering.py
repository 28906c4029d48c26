"""A table as Markdown, LaTeX and CSV, and on a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

UNKNOWN = "–"
STEPS = "steps"
_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "\u00a0": "~"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "α": r"$\alpha$"}
_LATEX |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "\u202f": r"\,"}


@dataclass
class Table:
    """
    A table of texts, with the numbers behind them.

    :param caption: its title
    :param cells: a column per heading; the first one names the rows
    :param blocks: headings of the columns that are printed below one another on a terminal, beside the first one
    :param bold: whether a cell is in bold, shape of the cells
    :param numbers: a row per method and measure: ``mean``, ``se``, ``iqm``, ``low``, ``high``, ``n``, ``steps``
    :param notes: what has to be said about it, a sentence each
    :param file: path of its files, without their suffixes
    """

    caption: str
    cells: pd.DataFrame
    blocks: list[list[str]]
    bold: np.ndarray
    numbers: pd.DataFrame
    notes: list[str]
    file: Path

    def _rows(self, names: Sequence[str], plain: Callable[[str], str], bold: str) -> list[list[str]]:
        """Escaped headings and cells of some columns, those in bold inside a template."""
        cells = self.cells.map(plain)
        marked = cells.mask(self.bold, cells.map(lambda cell: bold.replace("{}", cell, 1)))
        return [[plain(name) for name in names], *marked[list(names)].to_numpy().tolist()]

    def markdown(self) -> str:
        """Caption, table and notes as GitHub's Markdown."""
        head, *rows = self._rows(list(self.cells), _markdown, "**{}**")
        table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
        notes = "".join(f"- {_markdown(note)}\n" for note in self.notes)
        return f"**{_markdown(self.caption)}**\n\n{table}\n" + (f"\n{notes}" if notes else "")

    def latex(self) -> str:
        r"""A ``table`` environment as wide as a column: the measures of the first block. Needs ``\usepackage{booktabs}``."""
        names = [self.cells.columns[0], *(name for name in self.blocks[0] if name != STEPS)]
        head, *rows = (f"{' & '.join(line)} \\\\\n" for line in self._rows(names, _latex, r"\textbf{{}}"))
        notes = "".join(f"\\par {_latex(note)}\n" for note in self.notes)
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{_latex(self.caption)}}}\n\\footnotesize\n\\setlength{{\\tabcolsep}}{{3pt}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}\n\\toprule\n{head}\\midrule\n{''.join(rows)}\\bottomrule\n"
            f"\\end{{tabular}}\n{notes}\\end{{table}}\n"
        )

    def print(self, console: Console) -> None:
        """Print it, with its notes: a block of columns below the other, so that 80 characters are enough."""
        for number, block in enumerate(self.blocks):
            head, *rows = self._rows([self.cells.columns[0], *block], escape, "[bold]{}[/]")
            title = None if number else escape(self.caption)
            table = RichTable(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
            for name in head:
                table.add_column(name, justify="right" if table.columns else "left", overflow="fold")
            for row in rows:
                if set(row[1:]) != {UNKNOWN}:
                    table.add_row(*row)
            console.print(table, "")
        for note in self.notes:
            console.print(f"- {escape(note)}", highlight=False)


def render(tables: Sequence[Table], form: str) -> str:
    """All tables as one text: "markdown", "latex" or "csv" (the numbers; unknown ones are empty)."""
    if form == "csv":
        return str(pd.concat([table.numbers.astype(object) for table in tables]).to_csv(index=False))
    return "\n".join(table.markdown() if form == "markdown" else table.latex() for table in tables)


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", _one_line(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # underscores inside of words are no markup


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return re.sub(r"[ \t\r\n\f\v]+", " ", text).strip(" ")  # not split(), which would take a no-break space for a space
