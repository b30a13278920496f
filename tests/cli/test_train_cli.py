"""`latentplan sft` and `latentplan grpo` from the command line, and what they say of mistakes."""

import json
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.experiments.recipes import find_recipe, parse_recipe, recipe_names
from latentplan.modeling.loading import load_model
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig, flatten_recipe
from latentplan.training.objectives import objectives, own_settings

SFT = (ModelArguments, DataArguments, SFTConfig)
GRPO = (ModelArguments, DataArguments, GRPOConfig)
SETTINGS = {
    "method": "atp_latent",
    "backbone_config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    "dataset_name": "minigsm",
    "dataset_size": 30,
    "max_latent_steps": 2,
    "curriculum_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": "1e-3",
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
}


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def recipe(tmp_path):
    def write(**overrides):
        path = tmp_path / "recipe.yaml"
        settings = {**SETTINGS, "output_dir": str(tmp_path / "run"), **overrides}
        path.write_text(
            yaml.safe_dump({name: value for name, value in settings.items() if value is not None})
        )
        return path

    return write


def test_supervised_and_rl_stage_from_recipes_with_flags_on_top(recipe, tmp_path):
    done = invoke("sft", "--config", recipe(), "--seed", 7, "--curriculum_steps", 2, 3)
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'run'}: atp_latent trained in" in done.output
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (settings["seed"], settings["learning_rate"], settings["max_latent_steps"]) == (7, 0.001, 2)
    assert settings["dataset_name"] == ["minigsm"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == [1, 1, 2, 2, 2]
    assert load_model(tmp_path / "run").reasoner.config.max_latent_steps == 2

    odd = invoke(
        "sft",
        "--config",
        recipe(model_name_or_path=str(tmp_path / "run"), backbone_config=None),
        "--output_dir",
        tmp_path / "odd",
        "--dtype",
        "bf16",
    )
    assert_short_message(odd, "error: dtype must be one of", "'bfloat16'", "got 'bf16'")

    rl = tmp_path / "rl.yaml"
    rl.write_text(
        yaml.safe_dump(
            {
                "model_name_or_path": str(tmp_path / "run"),
                "dataset_size": 10,
                "max_steps": 2,
                "num_generations": 4,
                "per_device_train_batch_size": 8,
                "max_completion_length": 4,
                "save_strategy": "no",
                "use_cpu": True,
                "reward_funcs": "format",
            }
        )
    )
    done = invoke("grpo", f"--config={rl}", "--output_dir", tmp_path / "rl", "--latent_gradient", "pathwise")
    assert done.exit_code == 0, done.output
    assert "atp_latent trained in" in done.output
    record = json.loads((tmp_path / "rl" / "run.json").read_text())
    assert (record["kind"], record["status"]) == ("grpo", "finished")
    saved = yaml.safe_load((tmp_path / "rl" / "config.yaml").read_text())
    assert (saved["objective"], saved["latent_gradient"], saved["likelihood_weight"]) == (
        "grpo",
        "pathwise",
        0,
    )
    assert "objective_settings" not in saved


def assert_short_message(done, *words):
    """Exit 2 and a message of a few lines that says what is wrong, and no traceback."""
    assert done.exit_code == 2, done.output
    output = " ".join(done.output.replace("│", " ").split())
    for word in words:
        assert word in output
    assert "Traceback" not in done.output
    assert len(done.output.splitlines()) < 16, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_recipe_that_does_not_exist():
    assert_short_message(
        invoke("sft", "--config", "quickstart/cott"), "no recipe 'quickstart/cott'", "quickstart/cot"
    )
    assert_short_message(invoke("sft", "--config"), "--config needs the name or path of a recipe")


def test_a_recipe_with_a_setting_that_does_not_exist(recipe):
    assert_short_message(
        invoke("sft", "--config", recipe(learning_rat=0.1)), "recipe.yaml", "no setting called learning_rat"
    )
    # A setting of the other stage is none of this one.
    assert_short_message(invoke("sft", "--config", recipe(num_generations=8)), "num_generations")


def test_a_recipe_that_is_not_one(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    assert_short_message(
        invoke("sft", "--config", tmp_path / "list.yaml"), "must hold `setting: value` lines"
    )
    (tmp_path / "broken.yaml").write_text("a: [1, 2\n")
    assert_short_message(invoke("sft", "--config", tmp_path / "broken.yaml"), "is not YAML")


def test_a_flag_that_does_not_exist(recipe):
    assert_short_message(invoke("sft", "--config", recipe(), "--learning_rat", "0.1"), "--learning_rat")


def test_a_value_of_the_wrong_kind(recipe):
    assert_short_message(
        invoke("sft", "--config", recipe(), "--learning_rate", "fast"), "learning_rate", "fast"
    )


def test_a_setting_that_is_a_mapping_as_a_flag(recipe):
    flags = ["--config", str(recipe()), "--objectives", '{"text": 1.0, stop: 0.5}']
    assert parse_recipe(SFT, flags)[2].objectives == {"text": 1.0, "stop": 0.5}
    for wrong in ("text", "[text]", "{text: ", "null"):
        assert_short_message(
            invoke("sft", "--config", recipe(), "--objectives", wrong), "--objectives", "must be a mapping"
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": "cotton"}, "method must be one of"),
        ({"backbone_config": None}, "model_name_or_path"),
        ({"curriculum_steps": [1, 2, 3]}, "one duration for each stage"),
        ({"tokenizer": "runes"}, "tokenizer must be one of"),
        ({"dataset_config": "sundial"}, "minigsm preset"),
        ({"dataset_name": ["nowhere.jsonl"]}, "nowhere.jsonl"),
        ({"objectives": {"poetry": 1.0}}, "objectives must be among"),
        ({"latent_head": "quantum"}, "latent_head must be one of"),
        ({"lr_scheduler_type": "zigzag"}, "zigzag"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_with_a_value_that_does_not_exist(overrides, message, recipe):
    assert_short_message(invoke("sft", "--config", recipe(**overrides)), message)


def test_rl_without_a_model(tmp_path):
    folder = tmp_path / "run"
    assert_short_message(invoke("grpo", "--output_dir", folder, "--use_cpu"), "set model_name_or_path")
    assert_short_message(
        invoke("grpo", "--output_dir", folder, "--model_name_or_path", tmp_path / "none", "--use_cpu"),
        "latentplan model",
    )


def test_another_run_in_the_same_place(recipe):
    assert invoke("sft", "--config", recipe(method="no_cot")).exit_code == 0
    assert_short_message(
        invoke("sft", "--config", recipe(method="no_cot", seed=1)), "other settings", "seed: 42 there, 1 now"
    )
    done = invoke("sft", "--config", recipe(method="no_cot", seed=1), "--overwrite_output_dir", "true")
    assert done.exit_code == 0, done.output


def test_every_setting_has_a_help_text_that_is_shown():
    done = invoke("sft", "--help_settings")
    assert done.exit_code == 0
    shown = " ".join(done.output.split())
    for name in ("--learning_rate", "--latents_per_step", "--dataset_size", "--backbone_config"):
        assert name in shown
    for each in (ModelArguments, DataArguments, SFTConfig, GRPOConfig):
        own = [item for item in fields(each) if item.name in each.__annotations__]
        assert [item.name for item in own if not item.metadata.get("help")] == []


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along_can_be_read(name):
    settings = yaml.safe_load(find_recipe(name).read_text())
    classes = SFT if "method" in settings else GRPO
    parsed = flatten_recipe(parse_recipe(classes, ["--config", name, "--use_cpu", "true"]))
    for setting, value in settings.items():
        read = parsed[setting]
        if isinstance(read, list) and not isinstance(value, list):
            value = [value]
        assert read == type(read)(value) if not isinstance(value, dict | list) else read == value, setting


# The settings that are an objective's own.


def read_rl(*flags, **recipe):
    """The settings of an RL run, flat."""
    arguments = ["--use_cpu", "true", *map(str, flags)]
    if recipe:
        file = Path("rl.yaml")
        file.write_text(yaml.safe_dump(recipe))
        arguments = ["--config", str(file), *arguments]
    return flatten_recipe(parse_recipe(GRPO, arguments))


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])


def test_own_settings_of_an_objective_are_flat_in_recipes_and_flags(in_a_folder):
    found = read_rl("--value_learning_rate", "1e-3", objective="latent_value", value_head_sizes=8)
    assert (found["value_learning_rate"], found["value_head_sizes"], found["value_states"]) == (
        1e-3,
        [8],
        "latents",
    )
    assert "likelihood_weight" not in found
    flags = ["--objective", "reference_likelihood", "--maximize=likelihood"]
    assert read_rl(*flags, learning_rate=1e-5)["maximize"] == "likelihood"
    assert read_rl(likelihood_weight=1)["likelihood_weight"] == 1.0
    assert read_rl(objective_settings={"likelihood_weight": 2.0})["likelihood_weight"] == 2.0


def test_what_was_read_can_be_read_again(in_a_folder):
    for objective in objectives():
        first = read_rl("--objective", objective)
        saved = json.loads(json.dumps(first, default=str))
        again = read_rl(
            **{name: saved[name] for name in saved if name in own_settings(objective)}, objective=objective
        )
        assert all(again[name] == first[name] for name in own_settings(objective))


@pytest.mark.parametrize(
    "arguments",
    [["--value_warmup_steps", "3"], ["--value_warmup_steps=3"], ["--value-warmup-steps", "3"]],
)
def test_a_flag_or_setting_of_another_objective_is_refused_by_name(arguments, recipe):
    message = "value_warmup_steps is a setting of objective latent_value; this run's objective is grpo"
    assert_short_message(invoke("grpo", *arguments), message)
    assert_short_message(invoke("grpo", "--config", recipe(method=None, value_warmup_steps=3)), message)
    assert_short_message(
        invoke("grpo", "--objective", "reinforce"), "objective must be one of", "'reinforce'"
    )


def test_the_help_shows_the_settings_of_every_objective():
    for chosen in ([], ["--objective", "latent_value"]):
        done = invoke("grpo", *chosen, "--help_settings")
        assert done.exit_code == 0
        for objective in objectives():
            assert all(f"--{name}" in done.output for name in own_settings(objective))
        assert "objective latent_value:" in done.output


PLUGIN = """
from dataclasses import dataclass
from latentplan.common.plugins import setting
from latentplan.training.objectives.grpo import GRPO

@dataclass
class Settings:
    floor: float = setting(-1.0, "least advantage")

class Floored(GRPO):
    name = "floored"
    settings_class = Settings
"""


def test_an_objective_of_one_s_own_has_flags_of_its_own(in_a_folder):
    Path("my_floored.py").write_text(PLUGIN)
    found = read_rl("--floor", "0.5", objective="my_floored:Floored")
    assert (found["objective"], found["floor"]) == ("my_floored:Floored", 0.5)
    with pytest.raises(typer.BadParameter, match=r"likelihood_weight is a setting of objective.* grpo"):
        read_rl("--likelihood_weight", "1", objective="my_floored:Floored")
    done = invoke("grpo", "--objective", "my_floored:Floored", "--help_settings")
    assert "--floor" in done.output
    assert "least advantage" in done.output


OLD = {
    "score_function": ("grpo", "score_function", {}),
    "pathwise": ("grpo", "pathwise", {}),
    "answers": ("grpo", "none", {}),
    "value": ("latent_value", "pathwise", {}),
    "likelihood": ("reference_likelihood", "pathwise", {"maximize": "likelihood"}),
    "log_likelihood": ("reference_likelihood", "pathwise", {"maximize": "log_likelihood"}),
}


@pytest.mark.parametrize("estimator", OLD)
def test_the_old_setting_estimator_is_accepted_with_a_notice(estimator, in_a_folder, caplog):
    objective, gradient, own = OLD[estimator]
    as_flag = read_rl("--estimator", estimator, objective="latent_value", max_steps=7)
    as_setting = read_rl(f"--seed={len(estimator)}", estimator=estimator)
    for found in (as_flag, as_setting):
        assert (found["objective"], found["latent_gradient"]) == (objective, gradient)
        assert own.items() <= found.items()
    assert f"--estimator: estimator: {estimator} is objective: {objective}, latent_gradient:" in caplog.text
    assert f"rl.yaml: estimator: {estimator} is objective: {objective}, latent_gradient:" in caplog.text


def test_the_name_of_trl_for_a_ratio_of_whole_sequences_is_objective_gspo(in_a_folder, caplog):
    assert read_rl("--importance_sampling_level", "sequence")["objective"] == "gspo"
    found = read_rl(importance_sampling_level="sequence", latent_gradient="pathwise", likelihood_weight=1)
    assert (found["objective"], found["latent_gradient"]) == ("gspo", "pathwise")
    assert read_rl("--importance-sampling-level=token", objective="gspo")["objective"] == "grpo"
    assert "version" not in caplog.text
    with pytest.raises(ValueError, match="importance_sampling_level must be one of"):
        read_rl("--importance_sampling_level", "word")


def test_an_old_estimator_that_never_was_is_refused(in_a_folder):
    with pytest.raises(typer.BadParameter, match=r"rl.yaml: estimator must be one of \['answers'"):
        read_rl(estimator="guess")
    with pytest.raises(ValueError, match="--estimator: estimator must be one of"):
        read_rl("--estimator", "guess")


def test_the_saved_configuration_of_an_old_run_is_a_recipe(in_a_folder):
    """It has the settings of all estimators, at their defaults."""
    saved = {"value_learning_rate": 1e-4, "value_head_sizes": None, "likelihood_weight": 0.0}
    assert read_rl(estimator="pathwise", **saved)["likelihood_weight"] == 0
    assert read_rl(estimator="value", **saved)["value_learning_rate"] == 1e-4
    with pytest.raises(
        typer.BadParameter, match="value_learning_rate is a setting of objective latent_value"
    ):
        read_rl(estimator="pathwise", **{**saved, "value_learning_rate": 1e-3})
