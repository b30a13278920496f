"""report.html: its structure, its numbers, its words, and what becomes of pieces that are missing."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from latentplan.cli.report import report
from latentplan.common.text_table import duration
from latentplan.report import ReportEntry, build_report
from latentplan.report.examples import example_groups, modulus_of
from latentplan.report.page import main_settings
from latentplan.report.run_reader import Run, load_runs
from latentplan.report.svg import Axis, Series, line_chart, round_ticks, thinned
from latentplan.report.wording import run_title, verdict

SECTIONS = ["summary", "comparison", "steps", "learning", "rl", "examples", "cost", "setup"]
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.tables: dict[str, SimpleNamespace] = {}
        self.cells: dict[str, list[float]] = {}
        self.words = ""
        self._row = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables[values["id"]] = SimpleNamespace(headers=0, captions=0)
        for name, counter in (("th", "headers"), ("caption", "captions")):
            if tag == name:
                table = list(self.tables.values())[-1]
                setattr(table, counter, getattr(table, counter) + 1)
        if tag == "tr":
            self._row = values.get("id", "")
        if tag == "data":
            self.cells.setdefault(self._row, []).append(float(values["value"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def with_tag(self, name: str) -> list[dict]:
        return [values for tag, values in self.tags if tag == name]


@pytest.fixture(scope="module")
def text(runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    parent = tmp_path_factory.mktemp("report")
    return build_report(
        parent, runs[1], seconds=1234.5, title="A <title>", command="make 'all' & go"
    ).read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def copied(runs, tmp_path: Path) -> tuple[Path, list[ReportEntry]]:
    parent, entries = runs
    shutil.copytree(parent, tmp_path / "runs")
    return tmp_path / "runs", [ReportEntry(e.name, e.title, tmp_path / "runs" / e.name) for e in entries]


def built(parent: Path, entries: list[ReportEntry]) -> Page:
    return Page(build_report(parent, entries).read_text())


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_every_section_stands_in_order_and_is_linked(page: Page) -> None:
    assert [values["id"] for values in page.with_tag("section")] == SECTIONS
    assert [values["href"] for values in page.with_tag("a")] == [f"#{name}" for name in SECTIONS[1:]]


def test_tables_have_headers_and_captions(page: Page) -> None:
    assert set(page.tables) == {"table-answers", "table-plans", "table-steps", "table-cost"}
    assert all(table.headers > 5 and table.captions == 1 for table in page.tables.values())
    assert all(values.get("scope") in ("col", "row", "colgroup") for values in page.with_tag("th"))


def test_nothing_is_loaded_from_elsewhere(page: Page, text: str) -> None:
    addresses = [
        values[key] for _, values in page.tags for key in ("src", "href", "xlink:href") if key in values
    ]
    assert all(address.startswith("#") for address in addresses)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert "url(" not in text
    assert "@import" not in text


def test_figures_are_described(page: Page) -> None:
    drawn = page.with_tag("svg")
    charts = [values for values in drawn if values.get("role") == "img"]
    assert len(charts) > 15
    assert all(len(values["aria-label"]) > 20 for values in charts)
    assert all(values.get("aria-hidden") == "true" for values in drawn if values not in charts)


def test_text_of_users_is_escaped(page: Page, text: str) -> None:
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;a question&#39;)" in text
    assert "<script>alert('a question')</script> & the dial" in page.words
    assert "make 'all' & go" in page.words
    assert "A <title>" in page.words


def test_numbers_of_the_table_are_those_of_the_files(runs, page: Page) -> None:
    for entry in runs[1]:
        greedy = json.loads((entry.path / "evaluation/test-greedy.json").read_text())
        sampled = json.loads((entry.path / "evaluation/test-sampled.json").read_text())
        record = json.loads((entry.path / "run.json").read_text())
        expected = [greedy["accuracy"][name] for name in ("estimate", "low", "high")]
        expected += [sampled["accuracy"]["estimate"]]
        expected += [greedy["tokens"][name] for name in ("mean", "latents", "text")]
        expected += [greedy["coherence"]["strict"]] if greedy["coherence"] else []
        expected += [record["seconds"], greedy["seconds"]]
        assert page.cells[f"row-{entry.name}"] == expected


def test_the_verdict_names_the_winner_and_what_rl_changed(copied) -> None:
    _, entries = copied
    words = verdict(load_runs(entries))
    assert words.startswith("CoT is the most accurate, with 99.5% of the 200 problems of minigsm-clock right")
    assert (
        "RL took ATP-Latent SFT from 81.0% to 88.0%, fixing 31 problems and breaking 17: no more than"
        in words
    )
    assert "not the spread between training seeds" in words


def test_the_verdict_falls_back_on_intervals_without_pairs(copied) -> None:
    parent, entries = copied
    (parent / "atp_latent_rl/evaluation/test-greedy.jsonl").unlink()
    file = parent / "atp_latent_rl/evaluation/test-greedy.json"
    edit(file, accuracy={"estimate": 0.95, "low": 0.93, "high": 0.97})
    assert "RL raised the accuracy of ATP-Latent SFT from 81.0% to 95.0%. With" in verdict(load_runs(entries))
    edit(file, accuracy={"estimate": 0.82, "low": None, "high": None})
    assert "from 81.0% to 82.0%: no more than chance explains." in verdict(load_runs(entries))


def test_cautions_come_from_numbers_and_from_evaluations(page: Page, copied) -> None:
    assert page.words.count("ATP-Latent RL: teacher-encoded reconstruction is 84.0%") == 1
    assert "Coconut: Accuracy hardly falls" in page.words
    parent, entries = copied
    edit(parent / "cot/evaluation/test-greedy.json", warnings=["the <b>test</b> set is small"])
    edit(parent / "atp_latent_rl/evaluation/test-greedy.json", warnings=["reconstruction is poor"])
    edit(parent / "no_cot/run.json", status="interrupted")
    words = built(parent, entries).words
    assert "CoT: the <b>test</b> set is small" in words
    assert "ATP-Latent RL: reconstruction is poor" in words
    assert "its status is 'interrupted'" in words


def test_examples_are_grouped_and_their_counts_add_up(runs) -> None:
    groups = example_groups(load_runs(runs[1]))
    titles = ["Fixed by RL", "Broken by RL", "Right before and after", "Wrong before and after"]
    assert [group.title for group in groups] == titles
    assert sum(group.total for group in groups) == 200
    assert all(len(example.answers) == 5 for group in groups for example in group.examples)
    fixed = groups[0].examples[0]
    assert [answer.correct for answer in fixed.plans] == [False, True]
    assert [answer.flaws > 0 for answer in fixed.plans] == [True, False]


def test_the_modulus_is_that_of_the_data(copied, page: Page) -> None:
    assert "Modulus of the arithmetic11" in page.words
    parent, entries = copied
    edit(parent / "cot/run.json", data={"modulus": None})
    edit(parent / "no_cot/run.json", data={})
    edit(parent / "coconut/run.json", data={"modulus": 7})
    assert [modulus_of(run) for run in load_runs(entries)] == [None, 11, 7, 11, 11]


def test_the_objective_of_a_run_is_told_also_where_it_was_saved_by_its_old_name() -> None:
    entry = ReportEntry("rl", "RL", Path("rl"))
    wanted = [("RL objective", "latent_value"), ("Gradient of the latents", "pathwise")]
    for config in ({"estimator": "value"}, {"objective": "latent_value", "latent_gradient": "pathwise"}):
        assert main_settings(Run(entry, config=config)) == wanted


def test_tokens_of_training_are_shown(copied) -> None:
    parent, entries = copied
    edit(parent / "cot/run.json", tokens_trained=3_456_000)
    assert "3.46M" in built(parent, entries).words


def test_one_run_is_enough(runs, tmp_path: Path) -> None:
    page = built(tmp_path, [runs[1][3]])
    assert [values["id"] for values in page.with_tag("section")] == SECTIONS
    assert "ATP-Latent SFT answers 81.0% of the 200 problems" in page.words
    assert "No run of this report was trained with RL." in page.words
    assert "Right 162 problems" in " ".join(page.words.split())


def test_rl_without_its_start_is_enough(runs, tmp_path: Path) -> None:
    page = built(tmp_path, [runs[1][4]])
    assert "No supervised run has logged a loss." in page.words
    assert "Reward part: accuracy" in page.words


def test_the_page_has_a_table_of_benchmarks(several: list[ReportEntry], tmp_path: Path) -> None:
    page = built(tmp_path, several)
    assert page.cells["benchmarks-cot"] == [
        *(0.4, 0.05, 0.95, 20.5),
        *(0.1, 0.05, 0.95, 20.5),
        *(0.6, 0.05, 0.95, 20.5),
    ]
    assert page.cells["benchmarks-atp_latent_sft"] == [0.4, 0.05, 0.95, 8.0, 0.1, 0.05, 0.95, 8.0]
    assert page.tables["table-benchmarks"].headers == 6
    assert "Accuracy by benchmark" in page.words
    assert "of gsm8k right" in page.words


def test_missing_pieces_leave_a_note(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    page = built(tmp_path, [ReportEntry("bare", "Bare", tmp_path / "bare")])
    assert [values["id"] for values in page.with_tag("section")] == SECTIONS
    for note in (
        "nothing to compare",
        "No run has been evaluated yet.",
        "No evaluation says how many steps",
        "No supervised run has logged a loss.",
        "No run of this report was trained with RL.",
        "No run has predictions to show.",
        "This run has no config.yaml.",
    ):
        assert note in page.words


def test_broken_files_leave_a_note(copied) -> None:
    parent, entries = copied
    with (parent / "cot/metrics.jsonl").open("a") as file:
        file.write('{"step": 620, "loss"\n[1, 2]\n{"loss/text": NaN, "step": 640}\n')
    (parent / "coconut/run.json").write_text("{")
    (parent / "coconut/config.yaml").write_text("a: [")
    (parent / "no_cot/evaluation/test-greedy.json").write_text("[]")
    words = built(parent, entries).words
    assert "metrics.jsonl of CoT: skipped 2 broken lines (31, 32)" in words
    assert "run.json of Coconut cannot be read" in words
    assert "config.yaml of Coconut cannot be read" in words
    assert "evaluation/test-greedy.json of No-CoT holds no mapping" in words


def test_a_resumed_run_is_read_once(copied) -> None:
    parent, entries = copied
    file = parent / "cot/metrics.jsonl"
    with file.open("a") as lines:
        lines.write(json.dumps({"step": 600, "loss/text": 0.5}) + "\n")
    series = load_runs(entries)[0].series("loss/text")
    assert series[-1] == (600, 0.5)
    assert len(series) == 30


def test_stages_of_the_curriculum_are_marked(text: str) -> None:
    assert "Stages begin at steps 20, 200, 400, 600." in text
    assert 'class="boundary"' in text


def test_the_command_line_writes_the_report_and_keeps_the_seconds(
    copied, capsys: pytest.CaptureFixture
) -> None:
    parent, entries = copied
    build_report(parent, entries, seconds=99.0)
    (parent / "report.html").unlink()
    report(parent)
    assert capsys.readouterr().out.strip() == str(parent / "report.html")
    assert json.loads((parent / "summary.json").read_text())["seconds"] == 99.0
    with pytest.raises(typer.Exit):
        report(parent / "cot" / "evaluation")
    assert "no run here" in capsys.readouterr().out


def test_round_ticks() -> None:
    assert round_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert round_ticks(0.13, 0.43) == [0.2, 0.3, 0.4]
    assert round_ticks(3, 3) == [3]


def test_thinning_keeps_the_mean() -> None:
    points = [(float(x), float(x % 7)) for x in range(960)]
    thin = thinned(points)
    assert len(thin) == 240
    assert sum(y for _, y in thin) / 240 == pytest.approx(sum(y for _, y in points) / 960)
    assert thinned(points[:240]) == points[:240]


@pytest.mark.parametrize("points", [[(1.0, 0.0)], [(0.0, 2.0), (5.0, 2.0)], [(0.0, -1.0), (1.0, 1e-9)]])
def test_charts_of_few_points(points: list[tuple[float, float]]) -> None:
    svg = line_chart([Series("a <b>", 0, points, smooth=True)], Axis("step"), Axis(), alt='a "chart" <here>')
    Page(str(svg))
    assert "nan" not in svg
    assert "&lt;here&gt;" in svg


def test_durations_and_titles() -> None:
    assert [duration(s) for s in (0.44, 64, 310, 7500, None)] == [
        "0.4 s",
        "64 s",
        "5 min 10 s",
        "2 h 05 min",
        "–",
    ]
    assert [run_title(n) for n in ("no_cot", "sim-cot", "atp_latent_rl")] == [
        "No-CoT",
        "SIM-CoT",
        "ATP-Latent RL",
    ]
