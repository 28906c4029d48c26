"""A table as Markdown, LaTeX, CSV, HTML and on the terminal."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "∩": r"$\cap$",
    "∖": r"$\setminus$",
    "–": "--",
    "\u00a0": "~",
    "\u202f": r"\,",
}
# Characters of the first column, on a terminal that is too narrow for its longest cell
_FIRST_COLUMN = 24


@dataclass(frozen=True)
class Number:
    """
    A line of a table's CSV: one metric of one row, unformatted. What is not known is nan.

    :param method: name of the method
    :param source: "ours", or where the number is taken from
    :param metric: name of the metric
    :param mean: over the seeds
    :param se: its standard error
    :param iqm: interquartile mean
    :param low: lower end of its 95 % interval
    :param high: upper end
    :param n: number of seeds
    :param steps: mean number of environment steps of a run
    """

    method: str
    source: str
    metric: str
    mean: float
    se: float
    iqm: float
    low: float
    high: float
    n: int
    steps: float


@dataclass
class Table:
    """
    A table of plain text cells.

    :param caption: its title
    :param header: names of the columns
    :param rows: for every row, one cell per column
    :param notes: what has to be said about it, a sentence each
    :param best: (row, column) of the cells in bold
    :param numbers: the numbers behind the cells
    """

    caption: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    best: set[tuple[int, int]] = field(default_factory=set)
    numbers: list[Number] = field(default_factory=list)

    def _cells(self, plain: Callable[[str], str], bold: str) -> list[list[str]]:
        """Escaped cells, those in bold inside a template with one ``{}``."""
        return [
            [bold.replace("{}", plain(cell), 1) if (i, j) in self.best else plain(cell) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]

    def markdown(self) -> str:
        """Caption, table and notes as GitHub's Markdown."""
        lines = [[_markdown(name) for name in self.header], ["---"] * len(self.header), *self._cells(_markdown, "**{}**")]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "".join(f"- {_markdown(note)}\n" for note in self.notes)
        return f"**{_markdown(self.caption)}**\n\n{table}\n" + (f"\n{notes}" if notes else "")

    def latex(self) -> str:
        r"""A ``table`` environment; needs ``\usepackage{booktabs}``."""
        head, *body = ([_latex(name) for name in self.header], *self._cells(_latex, r"\textbf{{}}"))
        notes = "".join(f"  \\par\\footnotesize {_latex(note)}\n" for note in self.notes)
        return (
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{_latex(self.caption)}}}\n"
            f"  \\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}\n    \\toprule\n"
            f"    {' & '.join(head)} \\\\\n    \\midrule\n"
            + "".join(f"    {' & '.join(line)} \\\\\n" for line in body)
            + f"    \\bottomrule\n  \\end{{tabular}}\n{notes}\\end{{table}}\n"
        )

    def csv(self) -> str:
        """The numbers, a line per method and metric, with the caption as its first column; unknown ones are empty."""
        return to_csv([self])

    def html(self) -> str:
        """A ``<table>`` with its caption, and a list of the notes."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        rows = (f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in self._cells(html.escape, "<b>{}</b>"))
        notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in self.notes)
        return (
            f"<table>\n<caption>{html.escape(self.caption)}</caption>\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>\n"
            + "".join(f"{row}\n" for row in rows)
            + "</tbody>\n</table>\n"
            + (f'<ul class="notes">\n{notes}</ul>\n' if notes else "")
        )

    def print(self, console: Console) -> None:
        """
        Print it, with its notes. A table that is too wide continues below, with its first column again.

        :param console: where to
        """
        cells = self._cells(escape, "[bold]{}[/bold]")
        for columns in self._column_groups(console.width):
            table = RichTable(title=escape(self.caption))
            for index in columns:
                table.add_column(escape(self.header[index]), justify="right" if index else "left", overflow="fold")
            for row in cells:
                table.add_row(*(row[index] for index in columns))
            console.print(table)
        for note in self.notes:
            console.print(f"- {escape(note)}", highlight=False)

    def _column_groups(self, width: int) -> list[list[int]]:
        """Columns that fit beside the first one; that one may be broken into lines."""
        # Two blanks and a rule
        widths = [3 + max(len(line[index]) for line in (self.header, *self.rows)) for index in range(len(self.header))]
        room = width - 1 - min(widths[0], 3 + _FIRST_COLUMN)
        groups: list[list[int]] = [[0]]
        left = room
        for index, needed in enumerate(widths[1:], start=1):
            if needed > left and len(groups[-1]) > 1:
                groups.append([0])
                left = room
            groups[-1].append(index)
            left -= needed
        return groups


def to_csv(tables: Sequence[Table]) -> str:
    """
    :param tables: any number of tables
    :return: their numbers as one CSV, see :meth:`Table.csv`
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(Number.__dataclass_fields__)
    writer.writerow(["table", *names])
    for table in tables:
        for number in table.numbers:
            writer.writerow([table.caption, *(_csv(getattr(number, name)) for name in names)])
    return text.getvalue()


def _csv(value: str | float) -> str | float:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _one_line(text: str) -> str:
    # Not split(), which would take a no-break space for a space
    return re.sub(r"[ \t\r\n\f\v]+", " ", text).strip(" ")


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", _one_line(text)).replace("&", "&amp;").replace("<", "&lt;")
    # Underscores inside of words are no markup
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))
