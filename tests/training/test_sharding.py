"""What DeepSpeed has announced to transformers does not change how a run makes its models."""

from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, set_hf_deepspeed_config


class AnnouncesZero3:
    def is_zero3(self):
        return True


def test_models_are_made_whole_under_zero_3(run_sft, tmp_path):
    """transformers would spread the weights while it makes a model, and need DeepSpeed for it."""
    announced = AnnouncesZero3()
    set_hf_deepspeed_config(announced)
    assert is_deepspeed_zero3_enabled()
    run = run_sft(tmp_path / "run", curriculum_steps=[1], max_latent_steps=1, save_strategy="no")
    assert run.finished
    assert not is_deepspeed_zero3_enabled()
