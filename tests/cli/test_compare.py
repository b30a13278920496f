"""`latentplan compare` from end to end on models that learn nothing, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import typer
import yaml
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.experiments import jobs
from latentplan.experiments.budget import equal_flops, equal_steps, length_of, stage_costs
from latentplan.experiments.comparison_request import read_rates
from latentplan.experiments.comparison_spec import Item, experiment_names, read_entries, read_experiment
from latentplan.experiments.recipes import parse_recipe, proportional, trainer_of

BACKBONE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
COMMON = {"dataset_size": 40, "per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 1}
COMMON |= {"use_cpu": True, "report_to": "none", "latents_per_step": 1, "max_latent_steps": 2}


@pytest.fixture
def recipes(tmp_path):
    """Two small recipes: CoT from scratch, and Coconut from its result."""
    cot = {"method": "cot", "backbone_config": BACKBONE, "curriculum_steps": 2, "output_dir": "runs/tiny/cot"}
    latent = {"method": "coconut", "model_name_or_path": "runs/tiny/cot", "curriculum_steps": [1, 3]}
    files = {}
    for name, settings in {"cot": cot, "latent": {**latent, "output_dir": "runs/tiny/latent"}}.items():
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump({**COMMON, **settings}))
    return files


class InProcess:
    """Stands for a child: carries its commands out at once, in this process."""

    commands: list[list[str]]

    def __init__(self, command, stdout, **options):
        self.code = 0
        for each in json.loads(command[-1]):
            self.commands.append(each)
            done = CliRunner().invoke(app, each)
            stdout.write(done.output)
            self.code = self.code or done.exit_code

    def poll(self):
        return self.code

    def terminate(self):
        pass

    def wait(self, timeout=None):
        return self.code


@pytest.fixture
def commands(monkeypatch):
    """The commands that were carried out, in this process."""
    InProcess.commands = []
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=InProcess, STDOUT=subprocess.STDOUT))
    monkeypatch.setattr(jobs, "time", SimpleNamespace(sleep=lambda seconds: None))
    return InProcess.commands


SMALL = ["--num_problems", "6", "--max_new_tokens", "4", "--seeds", "1"]


def compare(output, *arguments):
    options = ["compare", *SMALL, "--output", str(output), *map(str, arguments)]
    return CliRunner().invoke(app, options, env={"COLUMNS": "250"})


def test_from_end_to_end_again_and_with_other_settings(recipes, commands, tmp_path):
    output = tmp_path / "a comparison"
    done = compare(output, recipes["latent"], recipes["cot"], "--seeds", "2")
    assert done.exit_code == 0, done.output
    # CoT first, since the other starts from it, and each with its own seed.
    assert [each[0] for each in commands] == ["sft", "evaluate"] * 4
    starts = [
        each[each.index("--model_name_or_path") + 1] for each in commands if "--model_name_or_path" in each
    ]
    assert starts == [str(output / "42/cot"), str(output / "43/cot")]
    plan = json.loads((output / "compare.json").read_text())
    assert (plan["rows"], plan["seeds"]) == (["latent", "cot"], [42, 43])
    result = json.loads((output / "comparison.json").read_text())
    assert [(row["name"], row["steps"], row["seeds"]) for row in result["rows"]] == [
        ("latent", 4, 2),
        ("cot", 2, 2),
    ]
    assert result["rows"][0]["flops_with_starts"] == pytest.approx(
        sum(row["training_flops"] for row in result["rows"])
    )
    assert "minigsm:clock" in done.output

    commands.clear()
    assert compare(output, recipes["latent"], recipes["cot"], "--seeds", "2").exit_code == 0
    assert commands == []
    # More problems: only the evaluations are done again.
    assert compare(output, recipes["latent"], recipes["cot"], "--num_problems", "7").exit_code == 0
    assert [each[0] for each in commands] == ["evaluate"] * 2

    # A run that started from other weights than those that are there now is not taken either.
    commands.clear()
    record = json.loads((output / "42/latent/run.json").read_text())
    changed = {**record, "pinned": {**record["pinned"], "start": "another"}}
    (output / "42/latent/run.json").write_text(json.dumps(changed))
    stale = compare(output, recipes["latent"], recipes["cot"], "--num_problems", "7")
    assert "42/latent holds a run with other settings (other weights to start from)" in stale.stderr
    (output / "42/latent/run.json").write_text(json.dumps(record))

    recipes["cot"].write_text(
        recipes["cot"].read_text().replace("curriculum_steps: 2", "curriculum_steps: 1")
    )
    refused = compare(output, recipes["latent"], recipes["cot"], "--num_problems", "7")
    assert refused.exit_code == 2
    assert "42/cot holds a run with other settings (curriculum_steps: [2] there, [1] now)" in refused.stderr
    assert commands == []
    # What starts from a run that is trained again is trained again too.
    assert compare(output, recipes["latent"], recipes["cot"], "--num_problems", "7", "--redo").exit_code == 0
    assert [each[0] for each in commands] == ["sft", "evaluate"] * 2


def test_a_start_that_is_no_row_is_trained_and_not_evaluated(recipes, commands, tmp_path):
    items = [Item("quickstart/coconut")]
    entries = read_entries(items, {"learning_rate": 0.5})
    assert [(each.name, each.listed, each.start) for each in entries] == [
        ("cot", False, None),
        ("coconut", True, "cot"),
    ]
    assert {each.settings["learning_rate"] for each in entries} == {0.5}
    alone = compare(tmp_path / "out", recipes["latent"])
    assert alone.exit_code == 2
    assert "starts from runs/tiny/cot, which is the output_dir of none of the recipes" in alone.stderr


@pytest.mark.parametrize(
    ("text", "tried"),
    [("", []), ("1e-3,2e-3", [1e-3, 2e-3]), ("x0.5,x1 x2", [1.5e-4, 3e-4, 6e-4]), ("2e-3,2e-3", [2e-3])],
)
def test_learning_rates_are_given_or_factors_of_a_recipe_s_own(text, tried):
    assert read_rates(text).of(3e-4) == pytest.approx(tried)


@pytest.mark.parametrize("text", ["fast", "x1,2e-3", "0", "-1e-3", "x"])
def test_other_learning_rates_are_refused(text):
    with pytest.raises(typer.BadParameter, match="--learning_rates takes rates"):
        read_rates(text)


def test_the_best_learning_rate_on_validation_data_is_taken(recipes, commands, tmp_path):
    output = tmp_path / "out"
    done = compare(
        output, recipes["cot"], "--learning_rates", "1e-3,1e-2", "--num_validation", "5", "--seeds", "2"
    )
    assert done.exit_code == 0, done.output
    record = json.loads((output / "sweep/cot.json").read_text())
    assert record["split"] == "validation"
    assert set(record["accuracies"]) == {"0.001", "0.01"}
    best = max(record["accuracies"].values())
    assert record["chosen"] == min(
        float(rate) for rate, value in record["accuracies"].items() if value == best
    )
    # Two rates with the first seed, of which the better becomes the run; the second seed takes its rate.
    assert [each[0] for each in commands].count("sft") == 3
    for seed in (42, 43):
        settings = yaml.safe_load((output / str(seed) / "cot/config.yaml").read_text())
        assert settings["learning_rate"] == record["chosen"]
    assert "chosen by accuracy on 5 problems" in (output / "table.md").read_text()
    commands.clear()
    again = compare(
        output, recipes["cot"], "--learning_rates", "1e-3,1e-2", "--num_validation", "5", "--seeds", "2"
    )
    assert again.exit_code == 0
    assert commands == []
    asked = ["--learning_rates", "1e-3,1e-2", "--num_validation", "5", "--seeds", "2", "--plan_only"]
    assert "to do" not in compare(output, recipes["cot"], *asked).output
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"question": "two and two ?", "steps": ["<<2+2=4>>"], "answer": "4"}) + "\n")
    tested = compare(output, recipes["cot"], "--learning_rates", "1e-3", "--benchmark", mine)
    assert f"{mine} is what is tested on" in tested.stderr
    both = ["--benchmark", mine, "--validation", mine]
    same = compare(output, recipes["cot"], "--learning_rates", "1e-3", *both)
    assert "cannot choose learning rates: 1 of its questions are tested on" in same.stderr


def test_equal_flops(recipes, commands, tmp_path):
    output = tmp_path / "out"
    arguments = [recipes["cot"], recipes["latent"], "--budget", "flops", "--set", "curriculum_steps=60"]
    done = compare(output, *arguments, "--plan_only")
    assert done.exit_code == 0, done.output
    plan = json.loads((output / "compare.json").read_text())["entries"]
    assert plan["cot"]["changed_for_budget"] == {"curriculum_steps": [60]}
    lengths = plan["latent"]["changed_for_budget"]["curriculum_steps"]
    cot, latent = (stage_costs(output / "probes/42" / name) for name in ("cot", "latent"))
    assert sum(length * cost for length, cost in zip(lengths, latent, strict=True)) == pytest.approx(
        60 * cot[0], rel=0.02
    )


def entries_of(recipes):
    entries = read_entries([Item(str(recipes["cot"])), Item(str(recipes["latent"]))], {})
    lengths = {}
    for entry in entries:
        command, classes = trainer_of(entry.settings)
        name = str(recipes[entry.name])
        lengths[entry.name] = length_of(command, parse_recipe(classes, ["--config", name])[-1])
    return entries, lengths


def test_budgets_by_hand(recipes):
    entries, lengths = entries_of(recipes)
    assert lengths["latent"].stages == (1, 3)
    assert equal_steps(entries, lengths) == {
        "cot": {"curriculum_steps": [2]},
        "latent": {"curriculum_steps": [1, 1]},
    }
    # CoT costs 2 · 300 = 600; the other 1 · 10 + 3 · 30 = 100, so it trains six times as long.
    costs = {"cot": [300.0], "latent": [10.0, 30.0]}
    assert equal_flops(entries, lengths, costs)["latent"] == {"curriculum_steps": [6, 18]}
    assert proportional([1, 3], 24) == [6, 18]
    assert sum(proportional([200, 300, 200, 150], 397)) == 397
    with pytest.raises(ValueError, match="too few"):
        proportional([1, 1, 1], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name recipes to compare"),
        (["quickstart/cot", "quickstart/cot"], "two rows are called"),
        (["quickstart/nothing"], "there is no recipe"),
        (["quickstart/cot", "--set", "colour=red"], "none of the recipes has a setting called colour"),
        (["quickstart/cot", "--budget", "hours"], "--budget must be one of"),
        (["quickstart/cot", "--reference", "coconut"], "--reference must be a row"),
        (["quickstart/cot", "gpt2/coconut"], "name a --benchmark"),
        (["--experiment", "nothing"], "there is no experiment"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, tmp_path):
    refused = compare(tmp_path, *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_names_what_exists(name):
    asked = read_experiment(name)
    entries = read_entries(asked.recipes, asked.settings)
    assert asked.reference in {entry.name for entry in entries if entry.listed}
    steps = {}
    for entry in entries:
        assert entry.command in ("sft", "grpo")
        curriculum = entry.settings.get("curriculum_steps")
        if entry.listed and isinstance(curriculum, list):
            steps[entry.name] = sum(curriculum)
    assert len(set(steps.values())) <= 1, "rows with stages of their own are trained equally long"


def test_an_experiment_of_one_s_own_says_what_is_wrong(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipes: [quickstart/cot]\nbenchmark: clock\n")
    with pytest.raises(typer.BadParameter, match=r"is no experiment .*benchmark"):
        read_experiment(str(file))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of a killed parent")
def test_a_comparison_that_is_killed_goes_on(recipes, tmp_path, request):
    text = recipes["cot"].read_text().replace("curriculum_steps: 2", "curriculum_steps: 200")
    recipes["cot"].write_text(text.replace("save_steps: 1", "save_steps: 20"))
    output = tmp_path / "out"
    run = output / "42/cot"
    arguments = [sys.executable, "-m", "latentplan", "compare", str(recipes["cot"]), "--output", str(output)]
    with subprocess.Popen([*arguments, *SMALL], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 90
        while not list(run.glob("checkpoint-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    time.sleep(0.5)
    assert not (run / "model").exists()
    assert (run / "metrics.jsonl").stat().st_size > 0

    commands = request.getfixturevalue("commands")
    done = compare(output, recipes["cot"])
    assert done.exit_code == 0, done.output
    assert [each[0] for each in commands] == ["sft", "evaluate"]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 201))
    assert (output / "table.md").is_file()
