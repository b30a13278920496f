"""The documents keep their word: examples run, command lines parse, and what they name exists."""

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer
import yaml

from latentplan.cli.app import app
from latentplan.cli.estimate import read_plan
from latentplan.cli.train import find_config, split_arguments
from latentplan.experiments.recipes import parse_recipe, recipe_names
from latentplan.methods.base import Method, get_method, methods
from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.minigsm import PRESETS, MinigsmConfig
from latentplan.problems.problem import Problem
from latentplan.problems.sources import parse_benchmark_argument
from latentplan.problems.training_set import DataArguments
from latentplan.rollout.solve import solve
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig
from latentplan.training.consistency_check import check_method
from latentplan.training.latent_gradients import Actions
from latentplan.training.objectives import make_objective, objectives, own_settings
from latentplan.training.objectives.objective import RLObjective
from latentplan.training.rollout_batch import Minibatch
from latentplan.training.run_training import train_grpo, train_sft

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TRAINERS = {"sft": (SFTConfig, "quickstart/cot"), "grpo": (GRPOConfig, "quickstart/atp_latent_rl")}


@pytest.fixture
def scratch_run():
    """A run of three optimisation steps on 20 problems."""

    def run(folder: Path, **settings):
        backbone = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
        return train_sft(
            ModelArguments(backbone_config={**backbone, "num_attention_heads": 2}),
            DataArguments(dataset_size=20),
            SFTConfig(
                output_dir=str(folder),
                max_latent_steps=1,
                curriculum_steps=[3],
                logging_steps=1,
                save_strategy="no",
                use_cpu=True,
                report_to="none",
                **settings,
            ),
        )

    return run


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language, also those indented below a list item."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", document.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def command_lines(program: str) -> list:
    """Every `program …` of the documents, in code blocks and between backticks, as test parameters."""
    pattern = re.compile(rf"(?:\.venv/bin/)?{program} [^`]+")
    lines = []
    for document in DOCUMENTS:
        text = document.read_text()
        code = "\n".join(blocks(document, "bash")).splitlines() + re.findall(r"`([^`\n]+)`", text)
        lines += [line for line in code if pattern.fullmatch(line)]
    return [pytest.param(line, id=line) for line in dict.fromkeys(lines)]


def python_block(document: str, containing: str) -> str:
    return next(code for code in blocks(ROOT / document, "python") if containing in code)


def table_names(document: str, heading: str) -> list[str]:
    """The names in backticks in the first column of the first table below a heading."""
    rows = (ROOT / document).read_text().split(heading, 1)[1].split("| --- |", 1)[1].splitlines()[1:]
    cells = []
    for row in rows:
        if not row.startswith("|"):
            break
        cells.append(row.split("|")[1])
    return re.findall(r"`([^`]+)`", " ".join(cells))


def field_names(config: type) -> set[str]:
    return {item.name for item in dataclasses.fields(config)}


@pytest.mark.parametrize("document", ["README.md", "docs/python.md"])
def test_python_examples_run(document, tmp_path, monkeypatch, capsys, make_system, clock_tokenizer):
    system = make_system("atp_latent")
    system.save_pretrained(tmp_path / "runs/quickstart/atp_latent_rl/model", clock_tokenizer)
    monkeypatch.chdir(tmp_path)
    exec(python_block(document, "latentplan.load"), {})
    printed = capsys.readouterr().out
    assert "a dial shows 7" in printed
    assert "=> " in printed


@pytest.fixture
def cispo(tmp_path, monkeypatch):
    """The name of the objective of docs/rl.md, saved as the page says."""
    (tmp_path / "cispo.py").write_text(python_block("docs/rl.md", "class CISPO(GRPO)"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield "cispo:CISPO"
    sys.modules.pop("cispo", None)


@pytest.fixture
def anchored(tmp_path, monkeypatch):
    """The name of the method of docs/adding-a-method.md, saved as the page says."""
    code = python_block("docs/adding-a-method.md", "class Anchored(")
    assert len(code.splitlines()) < 150
    (tmp_path / "anchored.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield "anchored:Anchored"
    sys.modules.pop("anchored", None)


def test_method_example_is_what_it_says(anchored, make_system, make_batch, mixed_problems, overfit):
    system = make_system(anchored)
    batch = make_batch(system, mixed_problems[:2])  # 1 and 4 steps, in at most 3 latent steps of 2 slots
    latents = system.method.forward(system.reasoner, batch).chain.latents
    losses = []
    for pair in range(4):
        ids = batch["step_ids"][pair][batch["step_labels"][pair] != -100]
        step = int(batch["step_index"][pair])
        mine = latents[batch["step_row"][pair], 2 * step : 2 * step + 2].mean(dim=0)
        difference = mine - system.reasoner.embed(ids).mean(dim=0)
        losses.append(0.5 * float(difference.detach().square().mean()))
    outputs = system(**batch)
    assert outputs["loss/anchor"].item() == pytest.approx(sum(losses) / 4, rel=1e-4)
    assert outputs["loss"].item() == pytest.approx(
        outputs["loss/text"].item() + 0.1 * outputs["loss/anchor"].item(), rel=1e-5
    )
    assert overfit(system, mixed_problems, bound=0.1, steps=150) < 0.1
    # The first latent step alone, which both problems have.
    first = make_system(anchored, method_settings={"anchored_steps": 1})
    assert int(first.num_items(make_batch(first, mixed_problems[:2]))["anchor"]) == 2
    outputs = first(**make_batch(first, mixed_problems[:2]))
    of_first_steps = [losses[pair] for pair in range(4) if int(batch["step_index"][pair]) == 0]
    assert outputs["loss/anchor"].item() == pytest.approx(sum(of_first_steps) / 2, rel=1e-4)


def test_the_settings_of_the_method_example(anchored):
    classes = (ModelArguments, DataArguments, SFTConfig)
    given = ["--method", anchored, "--anchored_steps", "1", "--use_cpu", "true"]
    assert parse_recipe(classes, given)[2].method_settings == {"anchored_steps": 1}
    with pytest.raises(ValueError, match="anchored_steps must be 1 or more, got 0"):
        parse_recipe(classes, ["--method", anchored, "--anchored_steps", "0", "--use_cpu", "true"])


def test_method_example_trains_is_estimated_and_answers(anchored, tmp_path, scratch_run, capsys):
    run = scratch_run(tmp_path / "run", method=anchored, objectives={"text": 1.0, "anchor": 1.0})
    logged = (run.path / "metrics.jsonl").read_text()
    assert '"loss/anchor"' in logged
    sys.modules.pop("anchored")
    (tmp_path / "anchored.py").unlink()  # to use the model nobody needs it
    (solution,) = solve(load_model(run.path), ["( 1 + 2 )"], Sampling.greedy(max_new_tokens=4))
    assert solution[0].num_latents == 2


def test_process_example_trains_and_rolls_out_the_same(
    tmp_path, monkeypatch, make_system, make_batch, mixed_problems
):
    (tmp_path / "pairs.py").write_text(python_block("docs/adding-a-method.md", "class Pairs"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    system = make_system("pairs:PairedCoconut").eval()
    found = check_method(system.reasoner, system.method, make_batch(system, mixed_problems))
    assert max(found.values()) < 1e-3
    assert type(system.reasoner.thinking).__name__ == "Pairs"
    sys.modules.pop("pairs", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:Mine", "there is no module 'nowhere_at_all' on the Python path"),
        ("latentplan.methods.coconut:Nut", r"subclass of Method as 'package.module:Class', got .*Nut"),
    ],
)
def test_a_method_of_one_s_own_that_is_not_there_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        get_method(name)


def test_objective_example_trains_by_its_formula(cispo, tmp_path, scratch_run, monkeypatch):
    start = scratch_run(tmp_path / "start", method="atp_latent")
    settings = {
        "objective": cispo,
        "model_name_or_path": str(start.path),
        "output_dir": str(tmp_path / "rl"),
        "reward_funcs": f"{__name__}:letters",
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 3,
        "dataset_size": 8,
        "max_steps": 4,
        "num_iterations": 2,
        "learning_rate": 0.01,
        "logging_steps": 1,
        "signal_problems": 0,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }
    (tmp_path / "rl.yaml").write_text(yaml.safe_dump(settings))
    seen = []
    average = RLObjective.average

    def watched(objective, loss, mask, name, batch):
        seen.append((objective, loss.detach(), name))
        return average(objective, loss, mask, name, batch)

    monkeypatch.setattr(RLObjective, "average", watched)
    words = ["--config", str(tmp_path / "rl.yaml"), "--max_weight", "1.5"]
    run = train_grpo(*parse_recipe((ModelArguments, DataArguments, GRPOConfig), words))
    assert yaml.safe_load((run.path / "config.yaml").read_text())["max_weight"] == 1.5
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    assert any(row["clip_ratio/answers"] > 0 for row in rows)
    assert {name for _, _, name in seen} == {"latents", "answers"}
    assert all(type(objective).__name__ == "CISPO" for objective, _, _ in seen)


def letters(prompts, completions, **columns):
    """Another reward for answers of another length."""
    return [float(len(text) % 5) for text in completions]


def test_objective_example_by_hand(cispo, make_system):
    """Weights min(r, 2): ratios ½ and 4, advantages 3 and −1, log-probabilities −1 and −2."""
    config = GRPOConfig("unused", use_cpu=True, objective=cispo, objective_settings={"max_weight": 2.0})
    objective = make_objective(config, make_system("cot").reasoner)
    objective.action_advantages = lambda actions, batch: torch.tensor([[3.0, -1.0]])
    log_probs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    old = log_probs.detach() - torch.tensor([[0.5, 4.0]]).log()
    mask = torch.ones(1, 2)
    batch = Minibatch(None, None)
    loss = objective.surrogate(Actions("answers", log_probs, old, mask), mask, batch)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 * 3 * 1 - 2 * 1 * 2) / 2)
    torch.testing.assert_close(log_probs.grad, torch.tensor([[-0.5 * 3 / 2, 2 * 1 / 2]]))


def test_benchmark_example_of_contributing_is_read_from_its_file(tmp_path, monkeypatch):
    (tmp_path / "my_asdiv.py").write_text(python_block("CONTRIBUTING.md", "def asdiv_problem"))
    monkeypatch.syspath_prepend(tmp_path)
    row = {"question_text": "How many?", "steps": ["<<3+4=7>>"], "result": 7.0}
    (tmp_path / "asdiv.json").write_text(json.dumps([row]))
    argument = parse_benchmark_argument(f"my_asdiv:ASDIV={tmp_path / 'asdiv.json'}")
    assert argument.load() == [Problem("How many?", ("<<3+4=7>>",), "7")]


def test_kind_of_answer_of_contributing_compares_times(tmp_path, monkeypatch):
    (tmp_path / "my_times.py").write_text(python_block("CONTRIBUTING.md", "class ClockTime"))
    monkeypatch.syspath_prepend(tmp_path)
    kind = Problem("When?", (), "7:05", answer_kind="my_times:ClockTime").kind
    assert [kind.is_correct(text, "7:05") for text in ("### 07:05", "### 7:06", "7:05")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs/data.md"], ids=lambda path: path.name)
def test_data_examples_are_problems(document):
    for row in blocks(document, "json"):
        assert Problem.from_json(json.loads(row)).steps


@pytest.fixture(scope="session")
def methods_of_the_pages(tmp_path_factory):
    """The methods that the pages define, as files in a folder."""
    folder = tmp_path_factory.mktemp("methods_of_the_pages")
    for name, page, text in (
        ("anchored", "docs/adding-a-method.md", "class Anchored("),
        ("pairs", "docs/adding-a-method.md", "class Pairs"),
        ("fixed_noise", "docs/diagnosing.md", "class FixedNoise("),
    ):
        (folder / f"{name}.py").write_text(python_block(page, text))
    yield folder
    for file in folder.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize("line", command_lines("latentplan"))
def test_command_line_names_an_existing_command_and_its_options(
    line, methods_of_the_pages, cispo, monkeypatch
):
    monkeypatch.setattr(sys, "path", [*sys.path, str(methods_of_the_pages)])
    arguments = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert arguments, line
        command = command.commands[arguments.pop(0)]
    if not arguments:  # Only mentioned.
        return
    context = command.make_context("latentplan", list(arguments))
    if command.name == "estimate":
        read_plan([word.replace("RECIPE", "gpt2/cot") for word in context.args])
    if command.name in TRAINERS and "--help_settings" not in context.args:
        config, recipe = TRAINERS[command.name]
        # A placeholder, behind which there is no file: `--config RECIPE`.
        words, devices = split_arguments(context.args)
        find_config(devices.get("--accelerate_config", "ddp"))
        settings = [recipe if re.search(r"\b(RECIPE|NAME)\b", word) else word for word in words]
        parse_recipe((ModelArguments, DataArguments, config), [*settings, "--use_cpu", "true"])


@pytest.mark.parametrize("line", command_lines("make"))
def test_make_target_exists(line):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    words = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
    assert set(words) <= set(targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_recipes_and_links_exist(document):
    text = document.read_text()
    folders = "|".join({re.escape(name.split("/")[0]) for name in recipe_names()})
    recipes = set(re.findall(rf"(?<![\w/])((?:{folders})/[a-z_]+)(?![\w/.])", text))
    assert recipes <= set(recipe_names())
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / link).exists(), link


def test_settings_in_the_tables_exist():
    own = {name for objective in objectives() for name in own_settings(objective)}
    assert set(table_names("docs/rl.md", "## Settings")) <= field_names(GRPOConfig) | own
    assert own <= set(table_names("docs/rl.md", "## Settings"))
    assert set(table_names("docs/rl.md", "## Objectives")) == set(objectives())
    said = table_names("docs/rl.md", "## Add an RL objective")
    assert {name.split("(")[0] for name in said} <= set(vars(RLObjective))
    assert set(table_names("docs/data.md", "--multipliers 2,3,4")) <= field_names(MinigsmConfig)
    assert set(table_names("docs/data.md", "### 2\n")) == set(PRESETS)
    assert set(table_names("docs/methods.md", "# Methods")) == set(methods())
    decided = table_names("docs/adding-a-method.md", "## What a method can decide")
    assert {name.split("(")[0] for name in decided} <= set(vars(Method))
