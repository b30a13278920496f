"""Two processes on the CPU give what one gives: the effective batch decides, not how it is spread.

Plain stochastic gradient descent throughout: Adam would divide a gradient by its own size, and so enlarge the
last bit of gradients that are all but zero.
"""

import json
import math
from dataclasses import replace

import pytest

# Accelerate turns FSDP on for accelerators only; here it is turned on for processes on the CPU.
PROGRAM = """
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

initialise = AcceleratorState.__init__

def with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)

AcceleratorState.__init__ = with_fsdp

from latentplan.modeling.efficiency import matmul as products
from latentplan.modeling.efficiency import chunked_logits as vocabulary
from latentplan.modeling.efficiency import linear_layers as weight_gradients

vocabulary.LOGITS_AT_ONCE = 2**11  # processes differ in how many parts they take
weight_gradients.WORTH_DEFERRING["cpu"] = 0  # one process adds up what two defer
products.WORTH_IT = 0

import os, time
from latentplan.training import run_training as runs

class LateInTheFirst(runs.RunDirectory):
    def __init__(self, path, settings, command, overwrite, writes):
        time.sleep(writes * float(os.environ.get("FIRST_IS_LATE", 0)))
        super().__init__(path, settings, command, overwrite, writes)

class Dying(runs.MetricsFile):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == int(os.environ.get("DIES_AFTER", -1)):
            os._exit(9)

runs.RunDirectory, runs.MetricsFile = LateInTheFirst, Dying

import json, sys
from latentplan.cli.app import main

first = sys.argv[1:]
for flags in [[], *json.loads(os.environ.get("AGAIN_WITH", "[]"))]:
    sys.argv[1:] = [*first, *flags]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
ENGINES = {"ddp": {}, "fsdp2": FSDP2}
SFT = {
    "method": "atp_latent",
    "max_latent_steps": 3,
    "curriculum_steps": [3],
    "optim": "sgd",
    "learning_rate": 0.05,
}
GRPO = {
    "max_steps": 6,
    "num_generations": 4,
    "answers_per_latent": 2,
    "max_completion_length": 4,
    "reward_funcs": ["varied_rewards:of_completion"],
    "optim": "sgd",
    "learning_rate": 0.05,
}
SHARED = {"logging_steps": 1, "save_steps": 2, "seed": 3, "use_cpu": True}
# Differs between the trajectories of a group, so that every group has advantages; some have no reward.
REWARDS = """
def of_completion(completions, num_latents, **kwargs):
    totals = [sum(map(ord, text)) % 7 + used for text, used in zip(completions, num_latents)]
    return [None if total % 5 == 4 else total for total in totals]
"""


@pytest.fixture
def two_processes(in_two_processes):
    """Runs `latentplan` with a recipe in two processes, which may die after a step."""

    def run(command, settings, engine="ddp", dies_after=None, **environment):
        if dies_after is not None:
            environment.update(status=9, DIES_AFTER=str(dies_after))
        in_two_processes(PROGRAM, command, settings, **ENGINES[engine], **environment)

    return run


@pytest.fixture
def varied_rewards(tmp_path, monkeypatch):
    (tmp_path / "varied_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curves(one, other, names, tolerance=1e-5):
    first, second = metrics(one), metrics(other)
    assert [row["step"] for row in first] == [row["step"] for row in second]
    for name in names:
        # The metrics of a rollout are on the line of its first update.
        expected = [row[name] for row in first if name in row]
        assert [row[name] for row in second if name in row] == pytest.approx(
            expected, rel=tolerance, abs=tolerance
        ), name


@pytest.mark.parametrize(("engine", "tied"), [("ddp", False), ("fsdp2", True)])
def test_supervised_training_depends_on_the_effective_batch_alone(
    engine, tied, two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """One process with batch 8, with 2 · 4 accumulated, and two processes with batch 4."""
    settings = {**SHARED, **SFT}
    backbone = {**scratch_model.backbone_config, "tie_word_embeddings": tied}
    model = replace(scratch_model, backbone_config=backbone)
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": backbone}
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 4}
    two_processes("sft", {**settings, **data, **sizes}, engine)
    assert json.loads((two / "run.json").read_text())["status"] == "finished"
    one = run_sft(tmp_path / "one", model, **settings, per_device_train_batch_size=8).path
    halves = run_sft(
        tmp_path / "halves", model, **settings, per_device_train_batch_size=4, gradient_accumulation_steps=2
    ).path
    for other in (two, halves):
        assert_same_weights(one, other, tolerance=1e-5)
        assert_same_curves(one, other, ["loss", "grad_norm", "loss/text", "loss/step_decoder", "num_tokens"])


@pytest.mark.parametrize(
    ("method", "engine", "part"), [("codi", "fsdp2", "distillation"), ("colar", "ddp", "embedding")]
)
def test_methods_with_passes_of_their_own_depend_on_the_effective_batch_alone(
    method, engine, part, two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """CODI's teacher and CoLaR's compressed chain, in two processes and in accumulated micro-batches."""
    own = {"method": method, "latents_per_step": 1, "max_latent_steps": 12, "save_strategy": "no"}
    settings = {**SHARED, **SFT, **own}
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 4}
    two_processes("sft", {**settings, **data, **sizes}, engine)
    one = run_sft(tmp_path / "one", **settings, per_device_train_batch_size=8).path
    halves = run_sft(
        tmp_path / "halves", **settings, per_device_train_batch_size=4, gradient_accumulation_steps=2
    ).path
    for other in (two, halves):
        assert_same_weights(one, other, tolerance=1e-5)
        assert_same_curves(one, other, ["loss", "loss/text", f"loss/{part}", "num_tokens"])


def test_adapters_of_a_sharded_model_are_merged_and_a_finished_run_is_overwritten_by_both(
    two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """LoRA under FSDP2, then bfloat16; the first process is the last to look at the run it overwrites.

    Adapters are in all layers, also in the embeddings, which were tied.
    """
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapters = {
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": [*layers, "embed_tokens", "lm_head"],
        "backbone_config": {**scratch_model.backbone_config, "tie_word_embeddings": True},
    }
    data = {"dataset_config": "clock", "dataset_size": 40}
    two, half = tmp_path / "two", tmp_path / "bfloat16"
    (two / "model").mkdir(parents=True)
    (two / "config.yaml").write_text("seed: 4\n")
    (two / "run.json").write_text('{"status": "finished"}')
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 4, "overwrite_output_dir": True}
    again = [["--output_dir", str(half), "--bf16", "true"]]
    settings = {**SHARED, **SFT, "save_strategy": "no"}
    two_processes(
        "sft",
        {**settings, **adapters, **data, **sizes},
        "fsdp2",
        FIRST_IS_LATE="1",
        AGAIN_WITH=json.dumps(again),
    )
    model = replace(scratch_model, **adapters)
    one = run_sft(tmp_path / "one", model, **settings, per_device_train_batch_size=8).path
    # Of adapters on embeddings: their gradients are sums over all rows with a token, in another order.
    assert_same_weights(one, two, tolerance=5e-5)
    assert all(math.isfinite(row["loss"]) for row in metrics(half))
    assert json.loads((half / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("engine", "objective"),
    [
        ("ddp", {"latent_gradient": "score_function"}),
        ("ddp", {"latent_gradient": "score_function", "num_iterations": 2}),
        ("ddp", {"objective": "gspo", "mask_invalid_samples": True, "num_iterations": 2}),
        ("fsdp2", {"latent_gradient": "pathwise", "likelihood_weight": 1.0, "num_iterations": 2}),
    ],
)
def test_reinforcement_depends_on_the_effective_batch_alone(
    engine,
    objective,
    two_processes,
    run_grpo,
    trained,
    varied_rewards,
    assert_same_weights,
    weights_of,
    tmp_path,
):
    """16 trajectories of 4 questions: at once, in 2 · 8 accumulated, and 8 on each of two processes.

    The processes' chains of latents differ in length, so a rollout takes differently many passes on each.
    """
    start = trained("atp_latent")
    settings = {**SHARED, **GRPO, **objective}
    data = {"dataset_config": "clock", "dataset_size": 40, "model_name_or_path": str(start)}
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 8}
    two_processes("grpo", {**settings, **data, **sizes}, engine)
    one = run_grpo(tmp_path / "one", start, **settings, per_device_train_batch_size=16).path
    halves = run_grpo(
        tmp_path / "halves",
        start,
        **settings,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
    ).path
    for other in (two, halves):
        assert_same_weights(one, other, tolerance=1e-5)
        assert_same_curves(one, other, ["loss", "num_tokens"])
        rolled_out = ["reward", "reward_std", "frac_reward_none", "latents/mean_length"]
        assert_same_curves(one, other, rolled_out)
    assert 0 < sum(row.get("frac_reward_none", 0.0) for row in metrics(one)) < 6
    assert all(row["grad_norm"] > 0 for row in metrics(one))
    reconstruction = [
        json.loads((path / "run.json").read_text())["starting_reconstruction"] for path in (one, two)
    ]
    assert reconstruction[0] == reconstruction[1]
    moved = [float((value - weights_of(start)[name]).abs().max()) for name, value in weights_of(one).items()]
    assert max(moved) > 1e-3


@pytest.mark.parametrize(("engine", "resumed_by"), [("ddp", "one"), ("fsdp2", "two")])
def test_a_killed_run_of_two_processes_is_resumed_by_any_number(
    engine, resumed_by, two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """A checkpoint does not know how many devices wrote it: AdamW's moments, the data's place, the stage."""
    settings = {**SHARED, **SFT, "optim": "adamw_torch", "adam_epsilon": 1e-2, "effective_batch_size": 8}
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    folder = tmp_path / "two"
    here = {**settings, **data, "output_dir": str(folder), "per_device_train_batch_size": 4}
    two_processes("sft", here, engine, dies_after=5)
    assert (folder / "checkpoint-4" / "optimizer.safetensors").is_file()
    if resumed_by == "two":
        two_processes("sft", here, engine)
    else:
        run_sft(folder, **settings, per_device_train_batch_size=4)
    whole = run_sft(tmp_path / "whole", **settings, per_device_train_batch_size=8).path
    assert_same_weights(whole, folder, tolerance=2e-5)
    assert_same_curves(whole, folder, ["loss"])
