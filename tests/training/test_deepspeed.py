"""DeepSpeed ZeRO in two processes on the CPU gives what one process gives (run by hand: pytest -m slow).

Accelerate turns DeepSpeed on for accelerators only; here it is turned on for processes on the CPU. Under
ZeRO-3 nothing stays gathered: its thresholds are set so low that even these models are spread.
"""

import json

import pytest

from latentplan.training.trainable_model import LatentModelForTraining

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
pytestmark = pytest.mark.slow

PROGRAM = """
import os
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

initialise = AcceleratorState.__init__

def with_deepspeed(self, *args, deepspeed_plugin=None, **kwargs):
    initialise(self, *args, deepspeed_plugin=deepspeed_plugin, **kwargs)
    if deepspeed_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.DEEPSPEED
        deepspeed_plugin.set_mixed_precision(self._mixed_precision)
        deepspeed_plugin.select(_from_accelerator_state=True)
        self.deepspeed_plugins = deepspeed_plugin

AcceleratorState.__init__ = with_deepspeed

from latentplan.modeling.efficiency import chunked_logits as vocabulary

vocabulary.LOGITS_AT_ONCE = 2**11  # processes differ in how many parts they take

from latentplan.training import run_training as runs

class Dying(runs.MetricsFile):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == int(os.environ.get("DIES_AFTER", -1)):
            os._exit(9)

runs.MetricsFile = Dying

from latentplan.cli.app import main
main()
"""
SFT = {
    "method": "atp_latent",
    "max_latent_steps": 3,
    "curriculum_steps": [3],
    "optim": "sgd",
    "learning_rate": 0.05,
}
ADAM = {**SFT, "optim": "adamw_torch", "adam_epsilon": 1e-2}
GRPO = {
    "max_steps": 6,
    "num_generations": 4,
    "answers_per_latent": 2,
    "max_completion_length": 4,
    "optim": "sgd",
    "learning_rate": 0.05,
    "reward_funcs": ["length_of_completion:reward"],
}
SHARED = {"logging_steps": 1, "save_steps": 2, "seed": 3, "use_cpu": True}
REWARD = """
def reward(completions, num_latents, **kwargs):
    return [sum(map(ord, text)) % 7 + used for text, used in zip(completions, num_latents)]
"""


@pytest.fixture
def under_zero(in_two_processes, tmp_path):
    def run(stage, command, settings, dies_after=None):
        small = {"stage3_param_persistence_threshold": 0, "stage3_max_live_parameters": 1000}
        reuse = {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 1000}
        gather = {"stage3_gather_16bit_weights_on_model_save": True}
        sizes = ["train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"]
        zero = {"stage": stage, **({**small, **reuse, **gather} if stage == 3 else {})}
        config = {"zero_optimization": zero, **dict.fromkeys([*sizes, "gradient_clipping"], "auto")}
        (tmp_path / "deepspeed.json").write_text(json.dumps(config))
        environment = {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "deepspeed.json"),
            "ACCELERATE_CONFIG_DS_FIELDS": "",
            "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
            "DS_ACCELERATOR": "cpu",
        }
        if dies_after is not None:
            environment.update(status=9, DIES_AFTER=str(dies_after))
        in_two_processes(PROGRAM, command, settings, **environment)

    return run


@pytest.fixture
def data(scratch_model):
    return {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}


@pytest.mark.parametrize("stage", [2, 3])
def test_supervised_training(stage, under_zero, data, run_sft, assert_same_weights, tmp_path):
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    under_zero(stage, "sft", {**SHARED, **SFT, **data, **sizes})
    one = run_sft(tmp_path / "one", **SHARED, **SFT, per_device_train_batch_size=8).path
    assert_same_weights(one, two, tolerance=1e-5)


@pytest.mark.parametrize(("stage", "gradient"), [(2, "pathwise"), (3, "pathwise"), (3, "score_function")])
def test_reinforcement(
    stage, gradient, under_zero, run_grpo, trained, assert_same_weights, monkeypatch, tmp_path
):
    (tmp_path / "length_of_completion.py").write_text(REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    start, two = trained("atp_latent"), tmp_path / "two"
    settings = {**SHARED, **GRPO, "latent_gradient": gradient}
    data = {"dataset_config": "clock", "dataset_size": 40, "model_name_or_path": str(start)}
    under_zero(
        stage,
        "grpo",
        {**settings, **data, "output_dir": str(two), "per_device_train_batch_size": 8},
    )
    one = run_grpo(tmp_path / "one", start, **settings, per_device_train_batch_size=16).path
    assert_same_weights(one, two, tolerance=1e-5)


@pytest.mark.parametrize("stage", [2, 3])
def test_a_killed_run_goes_on_and_ends_with_its_best_checkpoint(
    stage, under_zero, data, run_sft, assert_same_weights, tmp_path
):
    best = {"metric_for_best_model": "loss", "load_best_model_at_end": True}
    evaluated = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset_size": 9, **best}
    settings = {**SHARED, **ADAM, **evaluated}
    two = tmp_path / "two"
    here = {**settings, **data, "output_dir": str(two), "per_device_train_batch_size": 4}
    under_zero(stage, "sft", here, dies_after=5)
    assert (two / "checkpoint-4" / "global_step4").is_dir()
    LatentModelForTraining.from_pretrained(two / "checkpoint-4")
    under_zero(stage, "sft", here)
    one = run_sft(tmp_path / "one", **settings, per_device_train_batch_size=8).path
    assert_same_weights(one, two, tolerance=1e-5)
