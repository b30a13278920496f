"""Numbers as readers see them, and one table in four formats."""

import io

import pytest
from rich.console import Console

from latentplan.common.text_table import (
    ABSENT,
    count,
    csv_of_mappings,
    decimal,
    duration,
    is_number,
    latex_table,
    markdown_cell,
    markdown_table,
    p_value,
    p_value_cell,
    percent,
    points,
    rough_duration,
    scientific,
    short,
    signed_points,
    terminal_table,
    with_interval,
)


@pytest.mark.parametrize("write", [percent, points, signed_points, decimal, count, scientific, duration])
@pytest.mark.parametrize("value", [None, True, "0.5", float("nan"), float("inf")])
def test_what_is_no_finite_number_is_shown_as_absent(write, value):
    assert not is_number(value)
    assert write(value) == ABSENT


def test_shares():
    assert (percent(0.8456), points(0.8456), signed_points(0.025)) == ("84.6%", "84.6", "+2.5")
    assert with_interval(0.845, 0.82, 0.87) == "84.5% [82.0, 87.0]"
    assert with_interval(0.845, None, 0.87) == "84.5%"
    assert with_interval(-0.05, -0.1, 0.0, signed_points, signed_points) == "-5.0 [-10.0, +0.0]"
    assert with_interval(None, 0.1, 0.2) == ABSENT


def test_counts_and_sizes():
    assert [count(value) for value in (12, 1234, 1_234_567, 2.5e9)] == ["12", "1,234", "1.23M", "2.5B"]
    assert (decimal(2.345, 2), scientific(1.2e13), short(0.02), short(3000)) == (
        "2.35",
        "1.20e13",
        "0.02",
        "3000",
    )


def test_durations():
    assert [duration(seconds) for seconds in (0.44, 64, 310, 7500)] == [
        "0.4 s",
        "64 s",
        "5 min 10 s",
        "2 h 05 min",
    ]
    assert [rough_duration(seconds) for seconds in (4.4, 99, 180, 7500)] == [
        "4 s",
        "99 s",
        "3 min",
        "2 h 05 min",
    ]


def test_p_values():
    assert [p_value(p).replace("\u00a0", " ") for p in (1e-5, 0.0042, 0.25)] == [
        "p < 0.001",
        "p = 0.004",
        "p = 0.25",
    ]
    assert [p_value_cell(p) for p in (1e-5, 0.25)] == ["< 0.001", "0.250"]


def test_a_table_in_markdown():
    assert markdown_table(["a", "b"], [["1", "2"]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 1 | 2 |",
    ]
    assert markdown_table(["a", "b"], [], num_left=1).splitlines()[1] == "| --- | ---: |"
    assert markdown_cell("a|b < c\nd") == "a\\|b < c\nd"
    assert markdown_cell("a|b < c\nd", html=True) == "a\\|b &lt; c<br>d"


def test_a_table_in_csv_has_a_column_for_every_key():
    assert csv_of_mappings([{"a": 1}, {"a": None, "b": "x,y"}]) == 'a,b\n1,\n,"x,y"\n'


def test_a_table_in_latex():
    assert latex_table(
        ["method", "accuracy"], {"gsm8k": [["a_b", "84.5%"], ["c", ABSENT]]}, "made by"
    ).splitlines() == [
        "% made by",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"method & accuracy \\",
        r"\midrule",
        r"\multicolumn{2}{l}{gsm8k} \\",
        r"a\_b & 84.5\% \\",
        r"c & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_table_on_the_terminal_has_numbers_flush_right():
    console = Console(file=io.StringIO(), width=40)
    console.print(terminal_table(["name", "value"], [["long name", "1"], None, ["b", "22"]], box=None))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        " name       value",
        " long name      1",
        " b             22",
    ]
