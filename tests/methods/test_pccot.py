"""PCCoT against the paper's iteration by hand, without a cache; and everywhere that latents are made."""

import pytest
import torch

from latentplan.methods.pccot import Jacobi, JacobiSettings
from latentplan.modeling.counter_rng import Draws, slots
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency import cuda_graphs
from latentplan.modeling.latent_length import LatentLength
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.thinking import Given, think, unroll
from latentplan.rollout.continuous_batching import ContinuousBatch, rows_of
from latentplan.rollout.engine import chain_noise, generate
from latentplan.rollout.logprobs import replay, score
from latentplan.rollout.solve import question_batch, solve
from latentplan.rollout.trace import LatentStep, trace
from latentplan.training.consistency_check import InconsistentMethodError, check_method

GAUSSIAN = {"latent_head": "gaussian", "stop_head": True, "objectives": {"text": 1.0}}


@pytest.fixture(params=["llama", "gpt2"])
def family(request):
    return request.param


def by_hand(reasoner, ids, iterations, size, noise=None, clamped=None):
    """Each block of `size` latents refined `iterations` times, the whole sequence read anew in every pass."""
    sequence, latents = reasoner.embed(ids[None])[0], []
    placeholder = reasoner.embed(torch.tensor([reasoner.config.start_latent_token_id]))
    for start in range(0, reasoner.config.num_slots, size):
        block = placeholder.expand(size, -1)
        held = {} if clamped is None else {i: clamped[start + i] for i in range(size) if start + i in clamped}
        block = torch.stack([held.get(i, block[i]) for i in range(size)])
        for iteration in range(iterations):
            read = torch.cat([sequence, block[:-1]])[None]
            hidden = reasoner.backbone(inputs_embeds=read, output_hidden_states=True).hidden_states[-1][
                0, -size:
            ]
            found = reasoner.latent_head(hidden)
            block = found.mean
            if noise is not None and iteration == iterations - 1:
                block = block + torch.exp(0.5 * found.log_variance) * noise[start : start + size]
            block = torch.stack([held.get(i, block[i]) for i in range(size)])
        sequence, latents = torch.cat([sequence, block]), [*latents, block]
    return torch.cat(latents)


@pytest.mark.parametrize(("block", "size"), [("chain", 6), ("step", 2)])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_latents_and_gradients_are_those_of_the_iteration_by_hand(
    family, block, size, iterations, make_system, make_batch, mixed_problems
):
    settings = {"iterations": iterations, "block": block}
    system = make_system("pccot", family=family, thinking_settings=settings)
    batch = make_batch(system, mixed_problems[:3])
    state = system.reasoner.start(batch["question_ids"], batch["question_mask"])
    chain = unroll(system.reasoner, state, torch.ones(3, 6, dtype=torch.long))
    for row in range(3):
        ids = batch["question_ids"][row][batch["question_mask"][row].bool()]
        expected = by_hand(system.reasoner, ids, iterations, size)
        torch.testing.assert_close(chain.latents[row], expected, atol=2e-4, rtol=1e-3)
    weight = system.reasoner.backbone.get_input_embeddings().weight
    # Not the sum of squares: the head's layer norm keeps it all but constant.
    into = torch.randn(chain.latents[0].shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((into * chain.latents[0]).sum(), weight)[0]
    ids = batch["question_ids"][0][batch["question_mask"][0].bool()]
    theirs = torch.autograd.grad((into * by_hand(system.reasoner, ids, iterations, size)).sum(), weight)[0]
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


def test_as_many_iterations_as_latents_are_the_sequential_process(
    family, make_system, make_batch, mixed_problems
):
    jacobi = make_system("pccot", family=family, thinking_settings={"iterations": 6})
    sequential = make_system("codi", family=family)
    batch = make_batch(jacobi, mixed_problems[:3])
    chains = [
        unroll(
            each.reasoner,
            each.reasoner.start(batch["question_ids"], batch["question_mask"]),
            batch["slot_mask"],
        )
        for each in (jacobi, sequential)
    ]
    torch.testing.assert_close(chains[0].latents, chains[1].latents, atol=1e-3, rtol=1e-3)


def test_a_chain_takes_one_pass_for_each_iteration_and_one_for_the_text(
    make_system, make_batch, mixed_problems, monkeypatch
):
    system = make_system("pccot", thinking_settings={"iterations": 3})
    passes, read = [], DecodingState.read

    def counted(self):
        passes.append(self.pending.shape[1])
        return read(self)

    monkeypatch.setattr(DecodingState, "read", counted)
    batch = make_batch(system, mixed_problems[:2])
    with torch.no_grad():
        generate(
            system.reasoner.eval(),
            batch["question_ids"],
            batch["question_mask"],
            torch.arange(2),
            seed=0,
            sampling=Sampling.greedy(1),
        )
    # The question; three drafts of all latents but the last; the latents with <|end-latent|>.
    assert passes[-4:] == [5, 5, 5, 7]


@pytest.mark.parametrize("block", ["chain", "step"])
def test_recorded_log_probabilities_are_scored_again(family, block, make_system, make_batch, mixed_problems):
    system = make_system("pccot", family=family, thinking_settings={"block": block}, **GAUSSIAN)
    reasoner, batch = system.reasoner.eval(), make_batch(system, mixed_problems)
    sampling = Sampling(temperature=1.5, max_new_tokens=5)
    rolled = generate(
        reasoner,
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(mixed_problems)),
        seed=3,
        sampling=sampling,
        draws=3,
        answers=2,
    )
    assert len(rolled.num_latents.unique()) > 1
    replayed = replay(reasoner, rolled, chain_noise(reasoner, rolled.chain_keys), sampling)
    for scores in (score(reasoner, rolled, sampling), replayed):
        torch.testing.assert_close(scores.latents, rolled.latent_log_probs, atol=5e-3, rtol=1e-3)
        torch.testing.assert_close(scores.stops, rolled.stop_log_probs, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(scores.answers, rolled.answer_log_probs, atol=1e-3, rtol=1e-3)
    used = rolled.slot_mask.bool()
    torch.testing.assert_close(replayed.chain.latents[used], rolled.latents[used], atol=1e-3, rtol=1e-3)


def test_clamped_latents_stand_in_every_iteration(family, make_system, make_batch, mixed_problems):
    system = make_system("pccot", family=family, thinking_settings={"iterations": 3})
    batch = make_batch(system, mixed_problems[:1])
    own = torch.randn(6, system.reasoner.config.hidden_size, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, True, False, False, True, False]])
    state = system.reasoner.start(batch["question_ids"], batch["question_mask"])
    with torch.no_grad():
        chain = think(
            system.reasoner,
            state,
            LatentLength(torch.ones(1, 6, dtype=torch.long)),
            Draws(),
            0.0,
            Given.intervened(own[None], mask),
        )
        ids = batch["question_ids"][0][batch["question_mask"][0].bool()]
        expected = by_hand(system.reasoner, ids, 3, 6, clamped={1: own[1], 4: own[4]})
    torch.testing.assert_close(chain.latents[0], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("block", ["chain", "step"])
def test_rows_of_a_continuous_batch_are_those_of_a_rollout(block, make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("pccot", thinking_settings={"block": block}, **GAUSSIAN))
    sampling, batch = Sampling(temperature=1.0, max_new_tokens=5), ContinuousBatch(model.reasoner)
    admitted = []
    for index, problem in enumerate(mixed_problems):
        ids = question_batch(model, [problem.question])[0][0].tolist()
        admitted.append(rows_of(ids, index, 0, 1 + index % 3, sampling))
        batch.admit(admitted[-1])
        batch.step()
    for _ in range(60):
        if batch.rows:
            batch.step()
    assert not batch.rows
    for index, (problem, rows) in enumerate(zip(mixed_problems, admitted, strict=True)):
        ids, mask = question_batch(model, [problem.question])
        rolled = generate(
            model.reasoner, ids, mask, torch.tensor([0]), seed=index, sampling=sampling, draws=len(rows)
        )
        for row, each in enumerate(rows):
            assert each.answer_ids == rolled.answer_ids[row][rolled.answer_mask[row].bool()].tolist()
            used = rolled.latents[row][rolled.slot_mask[row].bool()]
            assert len(each.latents) == len(used)
            if len(used):
                torch.testing.assert_close(torch.stack(each.latents), used, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("block", ["chain", "step"])
def test_a_trace_shows_the_greedy_trajectory(block, make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("pccot", thinking_settings={"block": block}, **GAUSSIAN))
    for problem in mixed_problems[:4]:
        seen = list(trace(model, problem.question, max_new_tokens=5))
        steps = [each for each in seen if isinstance(each, LatentStep) and not each.stopped]
        ((solution,),) = solve(model, [problem.question], Sampling.greedy(5))
        assert 2 * len(steps) == solution.num_latents
        assert all(each.latents.shape[0] == 2 for each in steps)


def test_training_and_rollouts_agree_and_a_forward_pass_of_its_own_does_not(
    make_system, make_batch, mixed_problems, monkeypatch
):
    system = make_system("pccot").eval()
    batch = make_batch(system, mixed_problems[:3])
    found = check_method(system.reasoner, system.method, batch)
    assert max(found.values()) < 1e-3
    system.reasoner.thinking = Jacobi(JacobiSettings(iterations=1))
    trained = system.method.forward(system.reasoner, batch)
    system.reasoner.thinking = Jacobi(JacobiSettings(iterations=3))
    monkeypatch.setattr(type(system.method), "forward", lambda self, reasoner, batch: trained)
    with pytest.raises(InconsistentMethodError, match="different latents from the same noise: at index"):
        check_method(system.reasoner, system.method, batch)


def test_it_learns_a_batch(make_system, overfit, mixed_problems):
    system = make_system("pccot")
    assert overfit(system, mixed_problems, bound=1.0, steps=150) < 1.0


def test_its_settings_are_saved_and_checked(make_system, tmp_path):
    system = make_system("pccot", thinking_settings={"iterations": 2, "block": "step"})
    system.reasoner.save_pretrained(tmp_path)
    loaded = type(system.reasoner).from_pretrained(tmp_path)
    assert (loaded.thinking.settings.iterations, loaded.thinking.settings.block) == (2, "step")
    for wrong in ({"iterations": 0}, {"block": "row"}, {"speed": 3}):
        with pytest.raises(ValueError, match=r"thinking_settings of latentplan\.methods\.pccot:Jacobi"):
            make_system("pccot", thinking_settings=wrong)
    assert slots(torch.arange(1), 1, 4).shape == (1, 1, 4)


@pytest.mark.parametrize("block", ["chain", "step"])
def test_captured_passes_forget_their_drafts(block, make_system, make_batch, mixed_problems, monkeypatch):
    """Static memory as on a GPU: a rollout of a size that came before is the plain one."""
    system = make_system("pccot", thinking_settings={"block": block}, **GAUSSIAN)
    batch = make_batch(system, mixed_problems)

    def roll_out():
        return generate(
            system.reasoner.eval(),
            batch["question_ids"],
            batch["question_mask"],
            torch.arange(len(mixed_problems)),
            seed=3,
            sampling=Sampling(max_new_tokens=4),
            draws=2,
            answers=2,
        )

    plain = roll_out()
    monkeypatch.setattr(cuda_graphs, "DEVICES", ("cpu",))
    monkeypatch.setenv("LATENTPLAN_CUDA_GRAPHS", "1")
    roll_out()
    again = roll_out()
    assert torch.equal(again.stops, plain.stops)
    assert torch.equal(again.answer_ids, plain.answer_ids)
    used = plain.slot_mask.bool()
    torch.testing.assert_close(again.latents[used], plain.latents[used], atol=1e-3, rtol=1e-3)


def test_no_row_of_a_continuous_batch_has_more_latents_than_it_may(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("pccot"))
    batch = ContinuousBatch(model.reasoner)
    ids = question_batch(model, [mixed_problems[0].question])[0][0].tolist()
    (row,) = rows_of(ids, 0, 0, 1, Sampling.greedy(4))
    row.max_tokens = 3
    batch.admit([row])
    assert len(row.latents) == 3
    assert row.ended
