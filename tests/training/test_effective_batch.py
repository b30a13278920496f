"""The effective batch decides, not the devices: accumulation and the length of stages follow from it."""

import pytest
from transformers import TrainingArguments

from latentplan.experiments.recipes import parse_recipe
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import ModelArguments, RunConfig, SFTConfig
from latentplan.training.sft_trainer import make_curriculum

SFT = (ModelArguments, DataArguments, SFTConfig)


@pytest.mark.parametrize(
    ("devices", "per_device", "passes"), [(1, 32, 4), (1, 128, 1), (4, 32, 1), (2, 16, 4), (8, 16, 1)]
)
def test_accumulation_follows_from_the_effective_batch(devices, per_device, passes, tmp_path, monkeypatch):
    monkeypatch.setattr(RunConfig, "world_size", property(lambda self: devices))
    settings = {"per_device_train_batch_size": per_device, "effective_batch_size": 128, "use_cpu": True}
    config = SFTConfig(output_dir=str(tmp_path), curriculum_epochs=[2.0], max_latent_steps=10, **settings)
    assert config.gradient_accumulation_steps == passes
    # 2 epochs of GSM8K-Aug's 385,620 problems at 128 rows a step, whatever the devices.
    assert make_curriculum(config, num_problems=385_620).steps == (6025,) * 10


def test_a_batch_that_does_not_come_out_even_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"effective_batch_size=100 must be a multiple .* 32 x 1 = 32"):
        SFTConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=32, effective_batch_size=100, use_cpu=True
        )


def test_epochs_of_each_stage_become_steps(sft_config, tmp_path):
    config = sft_config(tmp_path, curriculum_steps=None, curriculum_epochs=[1, 0.5, 3], max_latent_steps=3)
    assert make_curriculum(config, num_problems=80).steps == (10, 5, 30)
    with pytest.raises(ValueError, match="how many problems"):
        make_curriculum(config)


def test_steps_and_epochs_exclude_each_other(sft_config, tmp_path):
    with pytest.raises(ValueError, match="exclude each other"):
        make_curriculum(sft_config(tmp_path, curriculum_epochs=[1.0]), num_problems=8)


def test_a_stage_lasts_1000_steps_where_nothing_is_said(tmp_path):
    assert make_curriculum(SFTConfig(method="cot", output_dir=str(tmp_path), use_cpu=True)).steps == (1000,)


def test_a_flag_replaces_what_a_recipe_says_in_other_words(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("curriculum_epochs: 2\neffective_batch_size: 64\nuse_cpu: true\n")
    arguments = ["--config", str(recipe), "--output_dir", str(tmp_path / "run")]
    _, _, config = parse_recipe(SFT, arguments)
    assert (config.curriculum_epochs, config.gradient_accumulation_steps) == ([2], 8)
    flags = ["--curriculum_steps=5", "--gradient_accumulation_steps", "2"]
    _, _, config = parse_recipe(SFT, [*arguments, *flags])
    assert (config.curriculum_epochs, config.curriculum_steps) == (None, [5])
    assert (config.effective_batch_size, config.gradient_accumulation_steps) == (None, 2)


def test_several_visible_gpus_are_no_reason_to_cut_a_batch_apart(tmp_path, monkeypatch, caplog):
    """The Trainer would wrap the model in `nn.DataParallel` and multiply the batch."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda arguments: 8))
    config = SFTConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, effective_batch_size=32, use_cpu=True
    )
    assert (config.n_gpu, config.train_batch_size, config.gradient_accumulation_steps) == (1, 4, 8)
    assert "8 GPUs are visible and one is used: add --accelerate_config ddp" in caplog.text
