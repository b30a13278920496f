"""Every recipe that comes with latentplan: it parses, names what exists, and compares like with like."""

from pathlib import Path

import pytest
import yaml

from latentplan.experiments.recipes import find_recipe, parse_recipe, recipe_names
from latentplan.methods.base import methods
from latentplan.modeling.latent_heads import LATENT_HEADS
from latentplan.problems.benchmarks import BENCHMARKS
from latentplan.problems.training_set import DataArguments
from latentplan.rewards import get_reward
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig
from latentplan.training.memory.backbone_shapes import SHAPES
from latentplan.training.sft_trainer import make_curriculum

FULL_SIZE = ("llama-3.2-1b", "gpt2", "qwen2.5-0.5b", "llama-3.1-8b-lora")
GSM8K_AUG = 385_620
SAME = {
    "dataset_name",
    "effective_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "bf16",
    "eval_dataset_name",
}


def settings_of(name: str) -> dict:
    return yaml.safe_load(find_recipe(name).read_text())


def is_rl(name: str) -> bool:
    return "reward_funcs" in settings_of(name)


def parsed(name: str, tmp_path):
    kind = GRPOConfig if is_rl(name) else SFTConfig
    arguments = ["--config", name, "--use_cpu", "true", "--output_dir", str(tmp_path)]
    return parse_recipe((ModelArguments, DataArguments, kind), arguments)


def recipes_of(*folders: str, rl: bool) -> list[str]:
    return [name for name in recipe_names() if name.split("/")[0] in folders and is_rl(name) == rl]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_parses_and_names_what_exists(name, tmp_path):
    model, data, config = parsed(name, tmp_path)
    assert settings_of(name)["output_dir"] == f"runs/{name}"
    for each in [*data.dataset_name, *data.exclude_benchmarks, *config.eval_dataset_name]:
        assert each.partition("=")[0] in {*BENCHMARKS, "minigsm"}
    if isinstance(config, GRPOConfig):
        assert all(get_reward(reward) for reward in config.reward_funcs)
        assert len(config.reward_funcs) == len(config.reward_weights)
    else:
        assert config.method in methods()
        assert set(config.objectives or {}) <= set(methods()[config.method].all_objectives)
        assert config.latent_head in {None, *LATENT_HEADS}
    start = model.model_name_or_path
    if start is not None:
        assert start in SHAPES or start.removeprefix("runs/") in recipe_names()


@pytest.mark.parametrize("folder", FULL_SIZE)
def test_the_supervised_recipes_of_a_folder_differ_only_in_the_method(folder):
    settings = [settings_of(name) for name in recipes_of(folder, rl=False)]
    assert len(settings) > 1
    for key in SAME:
        assert len({str(each.get(key)) for each in settings}) == 1, key


@pytest.mark.parametrize("name", recipes_of(*FULL_SIZE, rl=False))
def test_a_method_is_trained_for_25_epochs_with_those_of_its_start(name, tmp_path):
    model, _, config = parsed(name, tmp_path)
    epochs = sum(config.curriculum_epochs)
    starts_from = {"runs/gpt2/cot": 3}  # what stage 0 of Coconut's curriculum would have been
    assert epochs + starts_from.get(model.model_name_or_path, 0) == 25
    curriculum = make_curriculum(config, GSM8K_AUG)
    assert curriculum.total_steps == pytest.approx(epochs * GSM8K_AUG / 128, rel=1e-3)
    words = " ".join(Path(find_recipe(name)).read_text().replace("#", " ").split())
    assert f"{round(epochs * GSM8K_AUG / 128):,} steps" in words


@pytest.mark.parametrize("name", recipes_of(*FULL_SIZE, rl=True))
def test_rl_sees_16_questions_a_rollout_and_gsm8k_once(name, tmp_path):
    _, _, config = parsed(name, tmp_path)
    minibatches = config.steps_per_generation or config.gradient_accumulation_steps
    questions = config.per_device_train_batch_size * minibatches // config.num_generations
    updates = minibatches * config.num_iterations // config.gradient_accumulation_steps
    assert questions == 16
    assert config.max_steps == 7473 // questions * updates
    assert config.save_steps % updates == 0


@pytest.mark.parametrize("name", [name for name in recipe_names() if is_rl(name)])
def test_rl_averages_over_trajectories_first_as_published_whatever_the_default_is(name):
    assert settings_of(name)["loss_type"] == "grpo"


@pytest.mark.parametrize(
    "name", recipes_of(*FULL_SIZE, "published", rl=False) + recipes_of(*FULL_SIZE, rl=True)
)
def test_a_recipe_says_what_it_needs_and_how_that_is_known(name):
    words = " ".join(find_recipe(name).read_text().replace("#", " ").split())
    assert "GiB (estimated)" in words or "`latentplan estimate` says" in words
    assert "not measured" in words or "All else as in" in words
