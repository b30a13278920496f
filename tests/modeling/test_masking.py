"""A row's loss, gradients and rollout never depend on its neighbours."""

import pytest
import torch

from latentplan.methods.base import methods
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import score

FAMILIES = ["llama", "gpt2"]


@pytest.fixture(params=methods())
def method(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def loss_and_gradients(system, batch, num_items=None):
    system.zero_grad()
    outputs = system(num_items=num_items, **batch)
    outputs["loss"].backward()
    gradients = {
        name: weight.grad.clone() for name, weight in system.named_parameters() if weight.grad is not None
    }
    return {name: value.detach() for name, value in outputs.items()}, gradients


@pytest.mark.parametrize("stage", [1, 3])
def test_a_batch_s_loss_and_gradients_are_the_sum_of_its_rows(
    method, family, stage, make_system, make_batch, mixed_problems
):
    """With the numbers of items of the batch, each row alone gives its share: nothing leaks between rows."""
    # Smaller weights than elsewhere: six chained passes would amplify float32's rounding beyond 1e-5.
    system = make_system(method, family=family, backbone={"initializer_range": 0.1})
    batch = make_batch(system, mixed_problems, stage, keys=range(10, 16))
    num_items = system.num_items(batch)
    expected, gradients = loss_and_gradients(system, batch)
    shares, parts = [], []
    for row, problem in enumerate(mixed_problems):
        outputs, grads = loss_and_gradients(
            system, make_batch(system, [problem], stage, keys=[10 + row]), num_items
        )
        shares.append(outputs)
        parts.append(grads)
    for name, value in expected.items():
        torch.testing.assert_close(sum(share[name] for share in shares), value, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        total = sum(part[name] for part in parts if name in part)
        largest = max(1.0, float(gradient.abs().max()))
        assert float((total - gradient).abs().max()) < 1e-5 * largest, name


def test_more_padding_and_more_slots_change_nothing(method, make_system, make_batch, mixed_problems):
    """A row beside a much longer question and a longer chain, against the same row beside itself."""
    system = make_system(method)
    short, long = mixed_problems[0], mixed_problems[1]
    assert len(long.question) > 1.5 * len(short.question)

    def of_short(batch):
        passed = system.method.forward(system.reasoner, batch)
        length = int(batch["text_mask"][0].sum())
        return passed.chain.latents[0][batch["slot_mask"][0].bool()], passed.text_hidden[0, :length]

    alone = of_short(make_batch(system, [short], keys=[7]))
    beside = of_short(make_batch(system, [short, long], keys=[7, 8]))
    for one, other in zip(alone, beside, strict=True):
        # The hidden state before a given <|end-latent|> is not used, and is that of another slot.
        start = 1 if system.reasoner.config.num_slots and one is alone[1] else 0
        torch.testing.assert_close(one[start:], other[start:], atol=5e-5, rtol=1e-4)


def rollout(system, problems, places, make_batch, **settings):
    batch = make_batch(system, problems, keys=places)
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.tensor(places),
        seed=3,
        sampling=Sampling(max_new_tokens=8, **settings),
        draws=2,
        answers=2,
    )


@pytest.mark.parametrize(
    "temperatures", [{}, {"temperature": 0.0, "latent_temperature": 0.0}], ids=["sampled", "greedy"]
)
def test_a_rollout_is_the_same_alone_and_in_any_batch(
    method, family, temperatures, make_system, make_batch, mixed_problems
):
    system = make_system(method, family=family)
    places = [3, 1, 4, 0, 5, 9]
    together = rollout(system, mixed_problems, places, make_batch, **temperatures)
    order = [4, 2, 0, 5, 3, 1]
    shuffled = rollout(
        system, [mixed_problems[i] for i in order], [places[i] for i in order], make_batch, **temperatures
    )
    for row, problem in enumerate(mixed_problems):
        alone = rollout(system, [problem], [places[row]], make_batch, **temperatures).select(slice(0, 1))
        place = order.index(row)
        for candidate in (together.select(slice(row, row + 1)), shuffled.select(slice(place, place + 1))):
            assert_same_trajectories(alone, candidate)


def assert_same_trajectories(one, other):
    assert torch.equal(one.chain_keys, other.chain_keys)
    assert torch.equal(one.slot_mask, other.slot_mask)
    assert torch.equal(one.stop_mask, other.stop_mask)
    assert torch.equal(one.stops, other.stops)
    used = one.slot_mask.bool()
    close = {"atol": 2e-5, "rtol": 1e-4}
    first = used & (torch.arange(used.shape[1]) == 0)
    torch.testing.assert_close(one.latents[first], other.latents[first], **close)
    # What a processor rounds otherwise in the first slot has grown by the last.
    torch.testing.assert_close(one.latents[used], other.latents[used], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.latent_log_probs, other.latent_log_probs, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(one.stop_log_probs, other.stop_log_probs, **close)
    assert torch.equal(one.answer_ids, other.answer_ids)
    assert torch.equal(one.answer_mask, other.answer_mask)
    torch.testing.assert_close(one.answer_log_probs, other.answer_log_probs, **close)
    assert torch.equal(one.finished, other.finished)


def test_scores_and_their_gradients_do_not_depend_on_neighbours(make_system, make_batch, mixed_problems):
    system = make_system("atp_latent")
    together = rollout(system, mixed_problems, range(6), make_batch)
    sampling = Sampling(max_new_tokens=8)

    def gradient(trajectories):
        system.zero_grad()
        scores = score(system.reasoner, trajectories, sampling)
        (scores.latents.sum() + scores.stops.sum() + scores.answers.sum()).backward()
        return {name: weight.grad.clone() for name, weight in system.reasoner.named_parameters()}

    whole = gradient(together)
    parts = [gradient(together.select(slice(row, row + 1))) for row in range(6)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value, atol=1e-3, rtol=1e-3)
