"""A table as Markdown, LaTeX, CSV, and on a terminal."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from tables import tables_of

from sb3_nbsp.benchmark.rendering import Table, render
from sb3_nbsp.benchmark.table import SEQUENCE_MEASURES, _fill

pytestmark = pytest.mark.usefixtures("few_resamples")  # tables need not have them all


NASTY = "a_b|c [red]<b>&50% {x} $5 #1 ~ ^ \\ *s*"


@pytest.fixture
def nasty() -> Table:
    """Text that the formats have their own ideas about."""
    rows = [
        {
            "method": NASTY,
            "source": "ours",
            "measure": "ASR",
            "mean": 0.5,
            "se": 0.1,
            "iqm": 1 / 3,
            "low": 0.25,
            "high": 0.3,
            "n": 3,
        },
        {
            "method": 'a, "b"',
            "source": "ours",
            "measure": "ASR",
            "mean": 0.2,
            "se": 0.1,
            "iqm": 0.2,
            "low": 0.1,
            "high": 0.2,
            "n": 3,
        },
    ]
    return _fill(f"caption {NASTY}", rows, SEQUENCE_MEASURES, [f"note {NASTY}\nsecond line", "a → b"])


def unescape_markdown(text: str) -> str:
    return re.sub(r"\\([\\`*|\[\]_])", r"\1", text).replace("&lt;", "<").replace("&amp;", "&")


def test_markdown_parses_back(nasty: Table) -> None:
    text = nasty.markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [len(each) for each in rows] == [5] * 4
    assert rows[0][:3] == ["method", "seeds", "ASR ↑"] and rows[1] == ["---"] * 5
    assert [unescape_markdown(cell) for cell in rows[2][:3]] == [NASTY, "3", "**0.50 ± 0.10**"]
    assert "**caption a_b" in text.splitlines()[0]
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    assert [unescape_markdown(note) for note in notes] == [f"- note {NASTY} second line", "- a → b"]
    assert "<b>" not in text and "[red]" not in text.replace("\\[red\\]", "")


def test_markdown_underscores() -> None:
    table = _fill(
        "_c_", [{"method": "nbsp_sac", "source": "ours", "measure": "ASR", "mean": 1, "n": 1}], SEQUENCE_MEASURES, []
    )
    assert "| nbsp_sac |" in table.markdown() and table.markdown().startswith("**\\_c\\_**")


def test_latex(nasty: Table) -> None:
    text = nasty.latex()
    escaped = (
        r"a\_b\textbar{}c [red]\textless{}b\textgreater{}\&50\% \{x\} \$5 \#1 "
        r"\textasciitilde{} \textasciicircum{} \textbackslash{} *s*"
    )
    rows = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    cells = [each.strip().removesuffix(r" \\").split(" & ") for each in rows]
    assert cells == [[escaped, "3", r"\textbf{0.50 $\pm$ 0.10}"], ['a, "b"', "3", r"0.20 $\pm$ 0.10"]]
    assert r"method & seeds & ASR $\uparrow$ \\" in text
    assert rf"\caption{{caption {escaped}}}" in text
    assert rf"\par note {escaped} second line" in text and r"a $\rightarrow$ b" in text
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    # Braces are in balance, those that are escaped aside
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()


def test_latex_fits_a_column(comparison: Path) -> None:
    """At 8 points a character takes some 4 points, of the 250 of a column."""
    rows = tables_of(comparison, paper=True)[0].latex().split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert max(len(each.replace(r"$\pm$", "±").removesuffix(r" \\").replace(" & ", " ")) for each in rows) <= 62


def test_csv_parses_back(nasty: Table) -> None:
    frame = pd.read_csv(io.StringIO(render([nasty, nasty], "csv")))
    columns = ["method", "source", "measure", "mean", "se", "iqm", "low", "high", "n", "steps"]
    assert list(frame) == ["table", *columns] and len(frame) == 4, "one header"
    assert frame.table[0] == f"caption {NASTY}" and list(frame.method[:2]) == [NASTY, 'a, "b"']
    assert frame.iqm[0] == 1 / 3, "unrounded"
    assert frame.steps.isna().all()


def test_no_name_of_table_2_is_broken_on_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    (table,) = tables_of(Path(__file__).parents[2] / "docs" / "results" / "table2")
    table.print(console)
    assert console.export_text().count("NBSP, gradient masks ") == len(table.blocks)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal(nasty: Table, comparison: Path, width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in (nasty, *tables_of(comparison, paper=True)):
        table.print(console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "0.50 ± 0.10" in text and "[bold]" not in text and text.count(NASTY) >= 3, "what looks like markup is shown"
    # No cell is broken into lines, and the paper's rows have no intervals
    assert "0.63 [0.63, 0.63]" in text and "0.79 ± 0.06" in text and text.count("paper: NBSP") == 1
