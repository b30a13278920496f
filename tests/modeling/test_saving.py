import copy
import json

import pytest
import torch

from latentplan.common.run_files import is_latent_checkpoint
from latentplan.methods.base import methods
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.loading import load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.training.trainable_model import LatentModelForTraining


def outputs(system, batch):
    """The loss with its parts, and everything that a rollout leaves."""
    losses = system(**batch)
    rolled = generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(batch["question_ids"])),
        seed=0,
        sampling=Sampling(max_new_tokens=6),
    )
    return [
        *losses.values(),
        rolled.latents,
        rolled.stop_log_probs,
        rolled.answer_ids,
        rolled.answer_log_probs,
    ]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        *((name, {}) for name in methods()),
        (
            "atp_latent",
            {"latent_head": "projected", "stop_head": False, "objectives": {"text": 1, "step_decoder": 1}},
        ),
    ],
    ids=[*methods(), "projected"],
)
def test_a_saved_system_comes_back_with_identical_outputs(
    method, overrides, tied, make_system, make_batch, mixed_problems, clock_tokenizer, tmp_path
):
    system = make_system(method, backbone={"tie_word_embeddings": tied}, **overrides)
    batch = make_batch(system, mixed_problems[:3])
    expected = outputs(system, batch)
    system.save_pretrained(tmp_path, clock_tokenizer)
    loaded, model = LatentModelForTraining.from_pretrained(tmp_path, overrides.get("objectives"))
    assert (loaded.step_decoder is None) == (system.step_decoder is None)
    for old, new in zip(expected, outputs(loaded, batch), strict=True):
        assert torch.equal(old, new)
    embeddings = model.reasoner.get_input_embeddings().weight
    assert (embeddings is model.reasoner.get_output_embeddings().weight) == tied
    assert model.tokenizer.get_vocab() == clock_tokenizer.get_vocab()


def test_the_configuration_comes_back_whole(make_system, clock_tokenizer, tmp_path):
    system = make_system(
        "atp_latent",
        latents_per_step=3,
        max_latent_steps=4,
        initial_log_variance=-2.5,
        step_separator="",
        answer_marker="=",
    )
    system.save_pretrained(tmp_path, clock_tokenizer)
    loaded = load_model(tmp_path)
    old, new = system.reasoner.config, loaded.reasoner.config
    for name in LatentReasonerConfig.__annotations__:
        if name not in ("model_type", "sub_configs", "backbone_config"):
            assert getattr(new, name) == getattr(old, name), name
    assert (new.num_slots, new.hidden_size) == (12, 32)
    assert loaded.step_decoder.config.latents_per_step == 3
    assert (loaded.processor.separator, loaded.processor.answer_marker) == ([], "=")


def test_a_reasoner_loads_from_its_folder_alone(make_system, tmp_path):
    system = make_system("atp_latent")
    system.save_pretrained(tmp_path)
    loaded = LatentReasoner.from_pretrained(tmp_path)
    for (name, old), (other, new) in zip(
        system.reasoner.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(old, new), name


def test_weights_keep_their_dtype(make_system, clock_tokenizer, tmp_path):
    system = make_system("atp_latent").to(torch.bfloat16)
    system.save_pretrained(tmp_path, clock_tokenizer)
    loaded = load_model(tmp_path)
    assert loaded.reasoner.dtype == loaded.step_decoder.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_building_on_a_backbone_leaves_its_weights_alone(family, make_backbone, make_system):
    """A trained backbone must not be initialised again with the heads."""
    expected = make_backbone(family, seed=3).state_dict()
    system = make_system("atp_latent", family=family, seed=3)
    for part in (system.reasoner.backbone, system.step_decoder.backbone):
        for name, weight in part.state_dict().items():
            assert torch.equal(weight, expected[name]), name


def test_resized_embeddings_survive_building_and_saving(make_backbone, clock_tokenizer, tmp_path):
    """transformers marks what it has initialised; rows added later must not be drawn anew."""
    backbone = make_backbone()
    backbone.resize_token_embeddings(len(clock_tokenizer) + 5, mean_resizing=False)
    with torch.no_grad():
        backbone.get_input_embeddings().weight.fill_(0.125)
        backbone.get_output_embeddings().weight.fill_(0.25)
    reasoner = LatentReasoner(
        LatentReasonerConfig(backbone_config=backbone.config, method="coconut", latent_head="hidden_state"),
        backbone,
    )
    assert bool((reasoner.get_input_embeddings().weight == 0.125).all())
    assert bool((reasoner.get_output_embeddings().weight == 0.25).all())
    reasoner.save_pretrained(tmp_path)
    loaded = LatentReasoner.from_pretrained(tmp_path)
    assert bool((loaded.get_input_embeddings().weight == 0.125).all())
    assert loaded.config.backbone_config.vocab_size == len(clock_tokenizer) + 5


@pytest.mark.parametrize("latent_head", ["gaussian", "projected"])
def test_latents_start_at_the_given_scale(latent_head, make_system, make_batch, mixed_problems):
    """The maps to the mean start orthogonal, so that no direction of the hidden state is lost."""
    system = make_system(
        "atp_latent", latent_head=latent_head, initial_latent_scale=0.25, objectives={"text": 1.0}
    )
    mean = system.method.forward(system.reasoner, make_batch(system, mixed_problems)).chain.mean
    torch.testing.assert_close(mean.square().mean(dim=-1).sqrt(), torch.full((6, 6), 0.25), rtol=1e-3, atol=0)
    head = system.reasoner.latent_head
    identity = torch.eye(32)
    torch.testing.assert_close(head.mean.weight @ head.mean.weight.T, 0.25**2 * identity)
    for linear in (head.trunk[0], head.trunk[2]):
        torch.testing.assert_close(linear.weight @ linear.weight.T, identity)


def test_gaussian_heads_start_at_the_given_variance(make_system):
    head = make_system("atp_latent", initial_log_variance=-3.0).reasoner.latent_head
    assert bool((head.log_variance.bias == -3.0).all())
    assert bool((head.mean.bias == 0).all())


def test_a_folder_without_a_model_says_where_one_may_be(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no latentplan model"):
        load_model(tmp_path / "nothing")


def test_a_plain_language_model_is_not_taken_for_ours(make_backbone, tmp_path):
    make_backbone().save_pretrained(tmp_path)
    assert not is_latent_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="latentplan sft"):
        load_model(tmp_path)


def test_a_run_directory_stands_for_the_model_inside_it(make_system, clock_tokenizer, tmp_path):
    make_system("coconut").save_pretrained(tmp_path / "model", clock_tokenizer)
    assert not is_latent_checkpoint(tmp_path)
    assert load_model(tmp_path).reasoner.config.method == "coconut"


def test_damaged_weights_are_not_loaded_in_silence(make_system, clock_tokenizer, tmp_path):
    make_system("atp_latent").save_pretrained(tmp_path, clock_tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["hidden_size"] = 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises((RuntimeError, ValueError)):
        load_model(tmp_path)


def test_an_unknown_latent_head_is_refused(make_system):
    with pytest.raises(
        ValueError, match=r"one of \['embedding', 'gaussian', 'hidden_state', .*got 'quantum'"
    ):
        make_system("coconut", latent_head="quantum")


def test_a_copy_is_independent(make_system):
    system = make_system("atp_latent")
    other = copy.deepcopy(system.reasoner)
    with torch.no_grad():
        other.latent_head.mean.weight.add_(1)
    assert not torch.equal(other.latent_head.mean.weight, system.reasoner.latent_head.mean.weight)


def test_heads_stay_in_float32_beside_a_bfloat16_backbone(make_system, tmp_path):
    reasoner = make_system("atp_latent").reasoner
    reasoner.backbone.to(torch.bfloat16)
    reasoner.save_pretrained(tmp_path)
    loaded = LatentReasoner.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {weight.dtype for weight in loaded.backbone.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in loaded.latent_head.parameters()} == {torch.float32}
    ids = torch.ones(2, 3, dtype=torch.long)
    assert loaded.latent_head(loaded.start(ids, ids).read()).mean.dtype == torch.float32
