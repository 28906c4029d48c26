"""Tables in all formats, with text that the formats have their own ideas about."""

import csv
import io
import math
import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from rich.console import Console

from sb3_nbsp.benchmark.rendering import Number, Table, to_csv

NASTY = "a_b|c [red]<b>&50% {x} $5 #1 ~ ^ \\ *s*"
NAN = float("nan")


@pytest.fixture
def table() -> Table:
    return Table(
        f"caption {NASTY}",
        ["method", "ASR ↑"],
        [[NASTY, "0.50 ± 0.10"], ["plain", "–"]],
        [f"note {NASTY}\nsecond line", "a → b"],
        {(0, 1)},
        [
            Number("with, comma", "ours", "ASR", 0.5, 0.1, 1 / 3, 0.25, 0.75, 3, 1000.0),
            Number('with "quotes"', "paper", "FM", NAN, NAN, NAN, NAN, NAN, 1, NAN),
        ],
    )


def unescape_markdown(text: str) -> str:
    return re.sub(r"\\([\\`*|\[\]_])", r"\1", text).replace("&lt;", "<").replace("&amp;", "&")


def test_markdown_parses_back(table: Table) -> None:
    text = table.markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [len(row) for row in rows] == [2, 2, 2, 2]
    assert rows[0] == ["method", "ASR ↑"] and rows[1] == ["---", "---"]
    assert [unescape_markdown(cell) for cell in rows[2]] == [NASTY, "**0.50 ± 0.10**"]
    assert rows[3] == ["plain", "–"]
    assert "**caption a_b" in text.splitlines()[0]
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    assert [unescape_markdown(note) for note in notes] == [f"- note {NASTY} second line", "- a → b"]
    assert "<b>" not in text and "[red]" not in text.replace("\\[red\\]", "")


def test_markdown_underscores() -> None:
    table = Table("_c_", ["nbsp_sac", "_x"])
    assert "| nbsp_sac | \\_x |" in table.markdown()
    assert table.markdown().startswith("**\\_c\\_**")


def test_latex(table: Table) -> None:
    text = table.latex()
    escaped = (
        r"a\_b\textbar{}c [red]\textless{}b\textgreater{}\&50\% \{x\} \$5 \#1 "
        r"\textasciitilde{} \textasciicircum{} \textbackslash{} *s*"
    )
    rows = text.split("\\midrule\n")[1].split("    \\bottomrule")[0].splitlines()
    cells = [row.strip().removesuffix(r" \\").split(" & ") for row in rows]
    assert cells == [[escaped, r"\textbf{0.50 $\pm$ 0.10}"], ["plain", "--"]]
    assert r"method & ASR $\uparrow$ \\" in text
    assert rf"\caption{{caption {escaped}}}" in text
    assert rf"\par\footnotesize note {escaped} second line" in text and r"a $\rightarrow$ b" in text
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"\begin{tabular}{lr}" in text
    # Braces are in balance, those that are escaped aside
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert text.isascii()


def test_csv_parses_back(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert rows[0]["table"] == f"caption {NASTY}"
    assert (rows[0]["method"], rows[1]["method"]) == ("with, comma", 'with "quotes"')
    assert float(rows[0]["iqm"]) == 1 / 3, "unrounded"
    assert rows[1]["mean"] == "" and rows[1]["n"] == "1"
    frame = pd.read_csv(io.StringIO(table.csv()))
    assert list(frame.columns) == ["table", *Number.__dataclass_fields__]
    assert frame["low"][0] == 0.25 and math.isnan(frame["low"][1])


def test_csv_of_several_tables_has_one_header(table: Table) -> None:
    frame = pd.read_csv(io.StringIO(to_csv([table, Table("other", [], numbers=table.numbers[:1])])))
    assert list(frame["table"]) == [table.caption, table.caption, "other"]


def test_html_is_well_formed_and_escaped(table: Table) -> None:
    tree = ET.fromstring(f"<div>{table.html()}</div>")
    assert tree.findtext("table/caption") == table.caption
    assert [cell.text for cell in tree.iterfind("table/thead/tr/th")] == table.header
    rows = [["".join(cell.itertext()) for cell in row] for row in tree.iterfind("table/tbody/tr")]
    assert rows == table.rows
    assert [bold.text for bold in tree.iterfind(".//b")] == ["0.50 ± 0.10"]
    assert [note.text for note in tree.iterfind("ul/li")] == table.notes


def test_html_without_notes_has_no_list() -> None:
    assert "<ul" not in Table("c", ["a"]).html()


def test_terminal(table: Table) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    table.print(console)
    text = console.export_text()
    assert text.count(NASTY) == 3, "caption, cell and note, with what looks like markup"
    assert "0.50 ± 0.10" in text and "[bold]" not in text


def test_a_narrow_terminal_gets_the_columns_below_each_other() -> None:
    header = ["method", "first", "second", "third"]
    table = Table("c", header, [["a method with a name that is far too long", "1" * 20, "2" * 20, "3" * 20]])
    for width, titles in ((120, 1), (80, 2), (55, 3), (20, 3)):
        console = Console(width=width, record=True, file=io.StringIO())
        table.print(console)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert text.count("method ") >= titles and len(re.findall(r"^ *c *$", text, re.MULTILINE)) == titles
        if width > 50:
            assert all(digit * 20 in text for digit in "123")
