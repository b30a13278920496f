"""The methods as compositions: what each is made of, its ablations, and that each learns a batch by heart."""

import pytest
import torch

from latentplan.methods.base import get_method, methods
from latentplan.modeling import counter_rng
from latentplan.modeling.configuration import StepDecoderConfig
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.rollout.solve import solve
from latentplan.training.trainable_model import LatentModelForTraining


def test_the_parts_of_each_method(make_system):
    parts = {}
    for name in methods():
        system = make_system(name)
        config = system.reasoner.config
        parts[name] = (
            config.latent_head,
            system.reasoner.stop_head is not None,
            system.step_decoder is not None,
            config.num_slots,
        )
    assert parts == {
        "cot": (None, False, False, 0),
        "no_cot": (None, False, False, 0),
        "icot": (None, False, False, 0),
        "pause": ("pause", False, False, 6),
        "codi": ("projected_norm", False, False, 6),
        "pccot": ("projected_norm", False, False, 6),
        "colar": ("embedding", True, False, 12),
        "coconut": ("hidden_state", False, False, 6),
        "sim_cot": ("hidden_state", False, True, 6),
        "atp_latent": ("gaussian", True, True, 6),
    }


def test_a_method_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"atp_latent.*got 'magic'"):
        get_method("magic")


def test_coconut_feeds_the_last_hidden_state_back(make_system, make_batch, mixed_problems):
    """Slot by slot through the plain backbone, without a cache."""
    system = make_system("coconut")
    batch = make_batch(system, mixed_problems[:1])
    with torch.no_grad():
        chain = system.method.forward(system.reasoner, batch).chain
        sequence = system.reasoner.embed(batch["question_ids"])
        for slot in range(6):
            last = system.reasoner.backbone.base_model(inputs_embeds=sequence).last_hidden_state[:, -1:]
            torch.testing.assert_close(chain.latents[:, slot : slot + 1], last, atol=1e-5, rtol=1e-4)
            sequence = torch.cat([sequence, last], dim=1)


def test_gaussian_latents_are_mean_plus_deviation_times_the_row_s_noise(
    make_system, make_batch, mixed_problems
):
    system = make_system("atp_latent")
    batch = make_batch(system, mixed_problems[:2], keys=[11, 12])
    chain = system.method.forward(system.reasoner, batch).chain
    epsilon = (chain.latents - chain.mean) / (0.5 * chain.log_variance).exp()
    torch.testing.assert_close(
        epsilon, counter_rng.slots(torch.tensor([11, 12]), 6, 32), atol=1e-4, rtol=1e-3
    )
    # The first latent comes from the head on the hidden state before the slots.
    hidden = system.reasoner.start(batch["question_ids"], batch["question_mask"]).read()[:, -1]
    torch.testing.assert_close(system.reasoner.latent_head(hidden).mean, chain.mean[:, 0])
    # Other keys, other latents.
    other = system.method.forward(system.reasoner, make_batch(system, mixed_problems[:2], keys=[12, 11]))
    assert not torch.allclose(other.chain.latents, chain.latents)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_unused_slots_are_of_no_consequence_to_the_text(family, make_system, make_batch, mixed_problems):
    """A problem of one step uses two slots, be there two or six (without noise, which would differ)."""
    system = make_system(
        "atp_latent", family=family, latent_head="projected", objectives={"text": 1.0, "stop": 1.0}
    )
    two, six = (make_batch(system, mixed_problems[:1], stage) for stage in (1, 3))
    assert two["slot_mask"].tolist() == [[1, 1]]
    assert six["slot_mask"].tolist() == [[1, 1, 0, 0, 0, 0]]
    few, many = (system.method.forward(system.reasoner, batch) for batch in (two, six))
    torch.testing.assert_close(many.chain.latents[:, :2], few.chain.latents, atol=1e-5, rtol=1e-4)
    # The hidden state before <|end-latent|>, which is given, may be that of an unused slot.
    torch.testing.assert_close(many.text_hidden[:, 1:], few.text_hidden[:, 1:], atol=1e-5, rtol=1e-4)


def test_the_stop_head_sees_the_unused_slots(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent", objectives={"stop": 1.0})
    batch = make_batch(system, mixed_problems[:1])
    passed = system.method.forward(system.reasoner, batch)
    gradient = torch.autograd.grad(
        torch.nn.functional.cross_entropy(
            system.reasoner.stop_head(passed.chain.latents)[0], 1 - batch["slot_mask"][0]
        ),
        passed.chain.latents,
    )[0]
    assert bool((gradient[0].abs().sum(dim=1) > 0).all())


TEXT_AND_STEPS = {"text": 1.0, "step_decoder": 1.0}
ABLATIONS = {
    "no VAE": {"latent_head": "projected", "objectives": {**TEXT_AND_STEPS, "stop": 1.0}},
    "no stop head": {"stop_head": False, "objectives": {**TEXT_AND_STEPS, "kl": 1e-3}},
    "no decoder": {"objectives": {"text": 1.0, "stop": 1.0, "kl": 1e-3}},
    "text alone": {"latent_head": "hidden_state", "stop_head": False, "objectives": {"text": 1.0}},
}


@pytest.mark.parametrize("settings", ABLATIONS.values(), ids=ABLATIONS.keys())
def test_ablations_swap_one_part_and_train(settings, make_system, make_batch, mixed_problems, overfit):
    system = make_system("atp_latent", **settings)
    assert (system.step_decoder is None) == ("step_decoder" not in settings["objectives"])
    assert (system.reasoner.stop_head is None) == (settings.get("stop_head") is False)
    # Without a stop head every problem uses every slot.
    mask = make_batch(system, mixed_problems)["slot_mask"]
    assert bool(mask.all()) == (system.reasoner.stop_head is None)
    outputs = system(**make_batch(system, mixed_problems))
    assert set(outputs) == {"loss", *(f"loss/{name}" for name in settings["objectives"])}
    first = outputs["loss"].item()
    assert overfit(system, mixed_problems, bound=0.5 * first, steps=40) < 0.5 * first


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("atp_latent", {"latent_head": "projected"}, "'kl' needs a gaussian latent_head"),
        ("atp_latent", {"stop_head": False}, "'stop' needs a stop_head"),
        ("coconut", {"objectives": {"kl": 1.0}}, "'kl' needs a gaussian latent_head"),
        ("cot", {"objectives": {"text": 1.0, "stop": 1.0}}, "'stop' needs a stop_head"),
        (
            "colar",
            {"objectives": {"stop": 1.0}},
            "'stop' divides by the latent steps.*colar stand for tokens",
        ),
        ("colar", {"objectives": {"step_decoder": 1.0}}, "'step_decoder' divides by the latent steps"),
        ("cot", {"objectives": {"poetry": 1.0}}, r"must be among .*'text'.*got 'poetry'"),
    ],
)
def test_an_objective_without_its_part_is_refused(method, settings, message, make_system):
    with pytest.raises(ValueError, match=message):
        make_system(method, **settings)


def test_a_missing_decoder_is_refused(make_system):
    system = make_system("atp_latent")
    with pytest.raises(ValueError, match="'step_decoder' needs a step_decoder"):
        LatentModelForTraining(system.reasoner, None)


def test_a_decoder_of_another_width_is_refused(make_system, make_backbone):
    wide = make_backbone(hidden_size=64)
    decoder = StepDecoder(StepDecoderConfig(backbone_config=wide.config), wide)
    with pytest.raises(ValueError, match="latents of width 64, and this reasoner's have 32"):
        LatentModelForTraining(make_system("atp_latent").reasoner, decoder)


BOUNDS = {"sim_cot": 0.1, "atp_latent": 0.1}  # of the others 0.02


@pytest.mark.parametrize("method", [name for name in methods() if name != "colar"])  # test_colar.py
def test_every_method_learns_a_batch_by_heart_and_answers_it(
    method, make_system, mixed_problems, overfit, as_loaded
):
    system = make_system(method, initial_log_variance=-4.0)
    bound = BOUNDS.get(method, 0.02)
    assert overfit(system, mixed_problems, bound=bound, steps=400) < bound
    loaded = as_loaded(system)
    solutions = [
        solution
        for (solution,) in solve(
            loaded, [problem.question for problem in mixed_problems], Sampling.greedy(max_new_tokens=48)
        )
    ]
    for problem, solution in zip(mixed_problems, solutions, strict=True):
        assert solution.completion.endswith(f"### {problem.answer}")
        assert solution.finished
        if method == "cot":
            assert solution.plan == list(problem.steps)
        elif method == "atp_latent":
            # As many latents as steps (at most 3), each decoded to its step; the rest in the last.
            groups = [*problem.steps[:2], "\n".join(problem.steps[2:])]
            assert solution.plan == [step for step in groups if step]
            assert solution.num_latents == 2 * min(3, len(problem.steps))
        elif method == "sim_cot":
            assert solution.plan[: min(2, len(problem.steps))] == list(problem.steps[:2])
            assert solution.num_latents == 6
        else:
            assert solution.plan is None
            assert solution.completion == f"### {problem.answer}"
