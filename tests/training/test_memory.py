"""The memory estimate: exact where parameters decide, the real code's allocations where activations do."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig
from latentplan.training.memory import memory_estimate
from latentplan.training.memory.backbone_shapes import SHAPES, backbone_shape
from latentplan.training.memory.dry_run import (
    AllocationLedger,
    Lengths,
    as_if_on_a_device,
    build_system,
    peak_of_policy_step,
    peak_of_supervised_step,
    supervised_batch,
    supervised_loss,
    zero_trajectories,
)
from latentplan.training.memory.memory_estimate import RUNTIME, SHARDING, Weights, estimate_memory, weigh

LENGTHS = Lengths(question=24, step=6, answer=4, steps=2)
PUBLISHED = {  # parameters, as the hub counts them
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "openai-community/gpt2": 124_439_808,
}


def tiny(**overrides):
    config = copy.copy(backbone_shape("meta-llama/Llama-3.2-1B-Instruct"))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    settings = {**config.to_dict(), **sizes, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 500}
    settings.pop("layer_types", None)
    return type(config)(**{**settings, **overrides})


def supervised(tmp_path, **overrides) -> SFTConfig:
    settings = {
        "method": "atp_latent",
        "max_latent_steps": 1,
        "per_device_train_batch_size": 4,
        "latents_per_step": 1,
    }
    return SFTConfig(output_dir=str(tmp_path), use_cpu=True, **{**settings, **overrides})


def reinforced(tmp_path, **overrides) -> GRPOConfig:
    settings = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 5}
    return GRPOConfig(output_dir=str(tmp_path), use_cpu=True, **{**settings, **overrides})


def real_system(model, config, shape):
    """The system of `build_system`, with memory."""
    system = build_system(model, config, shape)
    as_if_on_a_device(system)
    with torch.no_grad():
        for value in system.parameters():
            value.normal_(0, 0.02)
        for value in system.buffers():
            value.fill_(0.5)
    return system


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_the_published_number_of_parameters(name, tmp_path):
    config = supervised(tmp_path, method="no_cot")
    system = build_system(ModelArguments(), config, backbone_shape(name), spare_rows=3)
    assert weigh(system).parameters == {
        "backbone": PUBLISHED[name],
        "heads": 0,
        "step decoder": 0,
        "adapters": 0,
    }


def test_weights_gradients_and_optimizer_are_those_of_a_real_training_step(tmp_path):
    config = supervised(tmp_path)
    system = real_system(ModelArguments(), config, tiny())
    optimizer = torch.optim.AdamW(system.parameters())
    supervised_loss(system, supervised_batch(system, 4, LENGTHS)).backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    weights = weigh(system)
    assert weights.weights == sum(each.nbytes for each in system.parameters())
    assert weights.gradients == sum(each.grad.nbytes for each in system.parameters())
    assert weights.optimizer == sum(each.nbytes for each in moments)
    assert weights.trained == sum(weights.parameters.values())


@pytest.mark.parametrize(
    ("method", "checkpointing"), [("atp_latent", False), ("atp_latent", True), ("codi", False)]
)
def test_the_dry_run_counts_what_a_real_supervised_step_allocates(tmp_path, method, checkpointing):
    config = supervised(tmp_path, method=method, gradient_checkpointing=checkpointing)
    real = peak_of_supervised_step(real_system(ModelArguments(), config, tiny()), config, LENGTHS)
    system = build_system(ModelArguments(), config, tiny())
    with FakeTensorMode():
        as_if_on_a_device(system)
        assert peak_of_supervised_step(system, config, LENGTHS) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("gradient", ["score_function", "pathwise"])
def test_the_dry_run_counts_what_a_real_policy_step_allocates(tmp_path, gradient):
    run = reinforced(tmp_path, latent_gradient=gradient, answers_per_latent=2)
    built_as = supervised(tmp_path)
    real = peak_of_policy_step(real_system(ModelArguments(), built_as, tiny()), run, LENGTHS)
    system = build_system(ModelArguments(), built_as, tiny())
    with FakeTensorMode():
        as_if_on_a_device(system)
        assert peak_of_policy_step(system, run, LENGTHS) == pytest.approx(real, rel=0.02)


def test_right_answers_beside_the_samples_are_scored_too(tmp_path):
    run = reinforced(tmp_path, latent_gradient="pathwise", answers_per_latent=2)
    system = build_system(ModelArguments(), supervised(tmp_path), tiny())
    with FakeTensorMode():
        as_if_on_a_device(system)
        trajectories = zero_trajectories(system, run, LENGTHS, reference_answers=True)
        assert (trajectories.draws, trajectories.answers) == (2, 3)
        plain = peak_of_policy_step(system, run, LENGTHS)
        run.objective_settings = {"likelihood_weight": 1.0}
        assert peak_of_policy_step(system, run, LENGTHS) > plain


def test_what_is_alive_after_the_forward_pass_is_what_autograd_has_saved(tmp_path):
    """Within 15%: the ledger also sees outputs and the KV cache, hooks see only what is saved."""
    config = supervised(tmp_path)
    system = real_system(ModelArguments(), config, tiny())
    batch = supervised_batch(system, 4, LENGTHS)
    own = {each.untyped_storage().data_ptr() for each in [*system.parameters(), *batch.values()]}
    saved: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    ledger = AllocationLedger([*system.parameters(), *system.buffers(), *batch.values()])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), ledger:
        loss = supervised_loss(system, batch)
    assert loss.requires_grad
    assert sum(saved.values()) == pytest.approx(ledger.live, rel=0.15)


def test_activations_of_a_deep_model_lie_on_a_line(tmp_path, monkeypatch):
    config = supervised(tmp_path)
    arguments = (ModelArguments(), config, config, tiny(num_hidden_layers=6))
    found = []
    for depths in ((3, 3), (2, 3)):  # six layers whole, and on the line through two and three
        monkeypatch.setattr(memory_estimate, "MEASURED_DEPTHS", depths)
        estimate = estimate_memory(*arguments, lengths=LENGTHS)
        found.append(estimate.training["activations and temporaries"])
    assert found[1] == pytest.approx(found[0], rel=0.01)


def test_a_frozen_backbone_has_no_optimizer_state(tmp_path):
    config = supervised(tmp_path)
    whole, frozen = (
        weigh(build_system(model, config, tiny()))
        for model in (ModelArguments(), ModelArguments(freeze_backbone=True))
    )
    assert frozen.weights == whole.weights
    assert whole.optimizer - frozen.optimizer == 2 * 4 * whole.parameters["backbone"]


def test_shares_of_several_devices():
    weights = Weights(parameters={}, trained=10, weights=800, gradients=400, optimizer=1200, unit=100)
    alone = {"weights": 800, "gradients": 400, "optimizer": 1200}
    assert all(share(weights, 1) == alone for share in SHARDING.values())
    assert SHARDING["ddp"](weights, 4) == {**alone, "gradient buckets": 400}
    assert SHARDING["zero2"](weights, 4) == {"weights": 800, "gradients": 100, "optimizer": 300}
    expected = {"weights": 200, "gradients": 100, "optimizer": 300, "gathered weights": 100}
    assert SHARDING["fsdp"](weights, 4) == SHARDING["zero3"](weights, 4) == expected


def test_a_rollout_holds_the_keys_and_values_of_every_trajectory(tmp_path):
    run = reinforced(tmp_path, steps_per_generation=3)
    result = estimate_memory(ModelArguments(), supervised(tmp_path), run, tiny(), lengths=LENGTHS)
    # 24 trajectories; question, one slot, <|end-latent|>, 5 tokens; one layer of 2 heads of 16 floats; as
    # much again is reserved.
    assert result.rollout["KV cache"] == 2 * 2 * 24 * (24 + 1 + 1 + 5) * 2 * 16 * 4
    assert result.rollout["logits"] == 24 * 503 * 36
    assert result.peak == max(sum(result.training.values()), sum(result.rollout.values()))
    assert result.training["runtime (assumed)"] == RUNTIME


def test_a_rollout_of_a_sharded_model_holds_all_weights(tmp_path):
    found = {}
    for sharding in ("ddp", "fsdp"):
        for bf16 in (False, True):
            result = estimate_memory(
                ModelArguments(),
                supervised(tmp_path),
                reinforced(tmp_path, bf16=bf16),
                tiny(),
                lengths=LENGTHS,
                devices=4,
                sharding=sharding,
            )
            found[sharding, bf16] = result.rollout
            whole = result.weights.weights
    assert found["fsdp", False]["weights"] == whole / 4
    assert found["fsdp", False]["gathered weights"] == whole
    assert found["fsdp", True]["gathered weights"] == whole / 2
    assert "weights cast by autocast" not in found["fsdp", True]
    assert "gathered weights" not in found["ddp", False]


def test_an_unknown_sharding_is_refused(tmp_path):
    config = supervised(tmp_path)
    with pytest.raises(ValueError, match="sharding must be one of ddp, fsdp, zero2, zero3"):
        estimate_memory(ModelArguments(), config, config, tiny(), sharding="zero9")
