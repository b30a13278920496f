"""What docs/backbones.md says of every family, on tiny random models of the real architectures."""

import torch

from latentplan.methods.base import methods
from latentplan.modeling.backbone_check import probe
from latentplan.modeling.lora import add_lora
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.training.trainable_model import LatentModelForTraining

CLOSE = {"atol": 1e-4, "rtol": 1e-3}


def roll(system, batch, places):
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.tensor(places),
        seed=3,
        sampling=Sampling(max_new_tokens=5),
        draws=2,
    )


def test_reading_in_parts_masked_columns_and_logits_agree_with_the_backbone(each_family, make_backbone):
    probe(make_backbone(each_family))


def test_every_method_trains_a_step(each_family, make_system, make_batch, mixed_problems):
    for method in methods():
        system = make_system(method, family=each_family)
        loss = system(**make_batch(system, mixed_problems[:3]))["loss"]
        loss.backward()
        assert bool(torch.isfinite(loss))
        for name, weight in system.named_parameters():
            assert weight.grad is None or bool(torch.isfinite(weight.grad).all()), name
        reached = [system.reasoner.get_input_embeddings().weight]
        for part in (system.reasoner.latent_head, system.reasoner.stop_head):
            reached += [] if part is None else list(part.parameters())
        assert all(weight.grad is not None and bool(weight.grad.any()) for weight in reached), method


def test_a_rollout_survives_saving_and_loading(
    each_family, make_system, make_batch, mixed_problems, clock_tokenizer, tmp_path
):
    system = make_system("atp_latent", family=each_family).eval()
    batch = make_batch(system, mixed_problems[:3])
    with torch.no_grad():
        loss, rolled = system(**batch)["loss"], roll(system, batch, [0, 1, 2])
    system.save_pretrained(tmp_path, clock_tokenizer)
    loaded, _ = LatentModelForTraining.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch)["loss"], loss)
    again = roll(loaded, batch, [0, 1, 2])
    assert torch.equal(again.latents, rolled.latents)
    assert torch.equal(again.answer_ids, rolled.answer_ids)
    assert system.step_decoder.decode(rolled.latents[:, :2], max_new_tokens=3).shape[0] == 6


def test_layers_that_are_run_again_give_the_same_gradients(
    each_family, make_system, make_batch, mixed_problems
):
    """Gradient checkpointing, through the latent passes."""
    system = make_system("atp_latent", family=each_family, backbone={"initializer_range": 0.1}).eval()
    batch, found = make_batch(system, mixed_problems[:2]), []
    for _ in range(2):
        system.zero_grad()
        system(**batch)["loss"].backward()
        found.append({name: weight.grad for name, weight in system.named_parameters()})
        system.activation_checkpointing_enable()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, **CLOSE)


def test_adapters_are_trained_in_place_of_the_weights(each_family, make_system, make_batch, mixed_problems):
    system = make_system("coconut", family=each_family)
    add_lora(system.reasoner.backbone, {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": None})
    loss = system(**make_batch(system, mixed_problems[:2]))["loss"]
    loss.backward()
    assert bool(torch.isfinite(loss))
    reached = {name for name, weight in system.named_parameters() if weight.grad is not None}
    assert reached
    assert all("lora_" in name for name in reached)


def assert_neighbours_do_not_matter(system, make_batch, problems):
    """Losses of single rows add up to that of the batch, and rollouts are those of single rows."""
    system.eval()
    batch = make_batch(system, problems, keys=range(10, 10 + len(problems)))
    num_items = system.num_items(batch)
    together = roll(system, batch, range(len(problems)))
    with torch.no_grad():
        whole, shares = system(num_items=num_items, **batch), []
        for row, problem in enumerate(problems):
            single = make_batch(system, [problem], keys=[10 + row])
            shares.append(system(num_items=num_items, **single))
            alone, beside = roll(system, single, [row]), together.select(slice(row, row + 1))
            alone = alone.select(slice(0, 1))
            assert torch.equal(alone.slot_mask, beside.slot_mask)
            used = alone.slot_mask.bool()
            torch.testing.assert_close(alone.latents[used], beside.latents[used], **CLOSE)
            torch.testing.assert_close(alone.answer_log_probs, beside.answer_log_probs, **CLOSE)
            assert torch.equal(alone.answer_ids, beside.answer_ids)
    for name, value in whole.items():
        torch.testing.assert_close(sum(share[name] for share in shares), value, **CLOSE)


def test_neighbours_do_not_matter(each_family, make_system, make_batch, mixed_problems):
    system = make_system("atp_latent", family=each_family, backbone={"initializer_range": 0.1})
    assert_neighbours_do_not_matter(system, make_batch, mixed_problems[:3])


def test_neighbours_do_not_matter_under_a_window_narrower_than_the_question(
    windowed_family, make_system, make_batch, mixed_problems
):
    """A masked column must not use up the window: transformers' own masks would count it."""
    family, settings = windowed_family
    system = make_system("atp_latent", family=family, backbone={"initializer_range": 0.1, **settings})
    assert min(len(row) for row in make_batch(system, mixed_problems[:3])["question_ids"]) > 5
    assert_neighbours_do_not_matter(system, make_batch, mixed_problems[:3])


def test_a_window_narrower_than_the_text_is_the_backbone_s_own(windowed_family, make_backbone):
    """Six tokens through a window of five: parts, masked columns and logits as of one plain pass."""
    family, settings = windowed_family
    backbone = make_backbone(family, **settings).eval()
    probe(backbone)
    ids = torch.arange(5, 17)[None]
    changed = ids.clone()
    changed[:, 0] += 1
    with torch.no_grad():
        differs = (backbone(ids).logits - backbone(changed).logits).abs().amax(dim=-1)[0]
    assert bool((differs[:4] > 0).all()), "a test of windows needs a window that matters"
