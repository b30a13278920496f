"""The engine against the plain model: what is sampled, what is greedy, what a stop removes, what counts."""

import math

import pytest
import torch

from latentplan.modeling import counter_rng
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import answer_from, chain_noise, generate, trajectory_keys
from latentplan.rollout.plan_decoding import sample_plans


def roll_out(system, batch, sampling, *, seed=0, draws=1, answers=1, places=None):
    rows = len(batch["question_ids"])
    return generate(
        system.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(rows) if places is None else torch.tensor(places),
        seed=seed,
        sampling=sampling,
        draws=draws,
        answers=answers,
    )


@pytest.fixture
def atp(make_system):
    return make_system("atp_latent")


def one_by_one(reasoner, question_ids, length, stop_at):
    """Greedy latents and answer of one question, by the plain backbone on the whole sequence each time."""
    config, base = reasoner.config, reasoner.backbone.base_model
    sequence = reasoner.embed(question_ids)
    latents, asked = [], []
    for slot in range(config.num_slots):
        latent = reasoner.latent_head(base(inputs_embeds=sequence).last_hidden_state[:, -1]).mean
        if slot % config.latents_per_step == 0 and reasoner.stop_head is not None:
            stop = int(reasoner.stop_head(latent).argmax())
            asked.append(stop)
            if stop:
                break
        latents.append(latent)
        sequence = torch.cat([sequence, latent.unsqueeze(1)], dim=1)
    if config.num_slots:
        end = torch.tensor([[config.end_latent_token_id]])
        sequence = torch.cat([sequence, reasoner.embed(end)], dim=1)
    written = []
    while len(written) < length and stop_at not in written:
        token = reasoner.logits(base(inputs_embeds=sequence).last_hidden_state[:, -1]).argmax(dim=-1)
        written.append(int(token))
        sequence = torch.cat([sequence, reasoner.embed(token)[:, None]], dim=1)
    return latents, asked, written


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["cot", "coconut", "atp_latent"])
@torch.no_grad()
def test_a_greedy_rollout_takes_means_and_the_most_probable(
    method, family, make_system, make_batch, mixed_problems
):
    system = make_system(method, family=family)
    rolled = roll_out(system, make_batch(system, mixed_problems), Sampling.greedy(6))
    eos = system.reasoner.config.eos_token_id
    for row, problem in enumerate(mixed_problems):
        alone = make_batch(system, [problem])["question_ids"]
        latents, asked, written = one_by_one(system.reasoner, alone, 6, eos)
        assert int(rolled.slot_mask[row].sum()) == len(latents)
        if latents:
            torch.testing.assert_close(
                rolled.latents[row, : len(latents)], torch.cat(latents), atol=1e-4, rtol=1e-4
            )
        assert rolled.stops[row][rolled.stop_mask[row].bool()].tolist() == asked
        assert rolled.answer_ids[row][rolled.answer_mask[row].bool()].tolist() == written


@torch.no_grad()
def test_a_stop_removes_its_slot_and_all_later_ones(atp, make_batch, mixed_problems):
    rolled = roll_out(atp, make_batch(atp, mixed_problems), Sampling(), draws=10)
    lengths = set()
    for mask, asked, stops in zip(rolled.slot_mask, rolled.stop_mask, rolled.stops, strict=True):
        steps = int(asked.sum()) - int(stops.sum())
        lengths.add(steps)
        assert mask.tolist() == [1] * (2 * steps) + [0] * (6 - 2 * steps)
        # Asked at the start of each step up to the stop, and never again.
        assert asked.tolist() == [1] * min(3, steps + 1) + [0] * (3 - min(3, steps + 1))
        assert stops.tolist() == [int(step == steps) for step in range(3)]
    assert lengths == {0, 1, 2, 3}  # Every case occurs here.
    assert bool((rolled.stop_log_probs[~rolled.stop_mask.bool()] == 0).all())
    assert bool((rolled.latent_log_probs[~rolled.slot_mask.bool()] == 0).all())


@torch.no_grad()
def test_the_stop_is_drawn_with_the_probability_of_the_stop_head(atp, make_batch, mixed_problems):
    """Without noise in the latents, the first decision of a question is the same coin, tossed 2000 times."""
    batch = make_batch(atp, mixed_problems[:1])
    rolled = roll_out(atp, batch, Sampling(latent_temperature=0.0, max_new_tokens=1), draws=2000)
    latent = rolled.latents[0, 0]
    probability = float(torch.softmax(atp.reasoner.stop_head(latent), dim=-1)[1])
    assert 0.02 < probability < 0.98
    share = float(rolled.stops[:, 0].float().mean())
    assert abs(share - probability) < 5 * (probability * (1 - probability) / 2000) ** 0.5
    expected = torch.where(rolled.stops[:, 0].bool(), probability, 1 - probability).log()
    torch.testing.assert_close(rolled.stop_log_probs[:, 0], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_latents_are_the_recorded_noise_around_the_mean(atp, make_batch, mixed_problems):
    batch = make_batch(atp, mixed_problems[:2])
    rolled = roll_out(atp, batch, Sampling(latent_temperature=0.5), draws=3, seed=9)
    assert torch.equal(rolled.chain_keys, trajectory_keys(9, torch.arange(2), 3))
    hidden = atp.reasoner.start(batch["question_ids"], batch["question_mask"]).read()[:, -1]
    head = atp.reasoner.latent_head(hidden.repeat_interleave(3, dim=0))
    epsilon = chain_noise(atp.reasoner, rolled.chain_keys)[:, 0]
    expected = head.mean + 0.5 * (0.5 * head.log_variance).exp() * epsilon
    torch.testing.assert_close(rolled.latents[:, 0], expected, atol=1e-4, rtol=1e-4)
    assert rolled.latents[:, 0].unique(dim=0).shape[0] == 6


@torch.no_grad()
def test_a_trajectory_depends_on_seed_problem_and_sample(atp, make_batch, mixed_problems):
    batch = make_batch(atp, [mixed_problems[0]] * 2)

    def firsts(seed, places):
        return roll_out(atp, batch, Sampling(), seed=seed, draws=2, places=places).latents[:, 0]

    same, again = firsts(0, [0, 0]), firsts(0, [0, 1])
    torch.testing.assert_close(same[:2], same[2:])
    torch.testing.assert_close(again[:2], same[:2])
    assert not torch.allclose(again[2:], same[2:])
    assert not torch.allclose(same[0], same[1])
    assert not torch.allclose(firsts(1, [0, 0]), same)


@torch.no_grad()
def test_more_samples_leave_the_first_ones_as_they_were(atp, make_batch, mixed_problems):
    batch = make_batch(atp, mixed_problems[:1])
    few = roll_out(atp, batch, Sampling(max_new_tokens=6), draws=2, answers=2)
    many = roll_out(atp, batch, Sampling(max_new_tokens=6), draws=4, answers=3)
    used = few.slot_mask.bool()
    torch.testing.assert_close(many.latents[:2][used], few.latents[used])
    by_chain = many.answer_ids.unflatten(0, (4, 3))[:2, :2].flatten(0, 1)
    assert torch.equal(by_chain[:, : few.answer_ids.shape[1]], few.answer_ids)


@torch.no_grad()
def test_answers_of_a_chain_share_its_latents_and_differ_in_their_noise(atp, make_batch, mixed_problems):
    rolled = roll_out(atp, make_batch(atp, mixed_problems[:3]), Sampling(temperature=2.0), draws=2, answers=8)
    assert (rolled.draws, rolled.answers) == (2, 8)
    assert rolled.latents.shape[0] == 6
    assert rolled.answer_ids.shape[0] == 48
    for chain in rolled.answer_ids.unflatten(0, (6, 8)):
        assert chain.unique(dim=0).shape[0] > 4


@torch.no_grad()
def test_tokens_are_drawn_with_the_probabilities_of_the_model(make_system, make_batch, mixed_problems):
    system = make_system("cot")
    batch = make_batch(system, mixed_problems[:1])
    rolled = roll_out(system, batch, Sampling(temperature=1.5, max_new_tokens=1), draws=4000)
    logits = system.reasoner.backbone(batch["question_ids"]).logits[0, -1]
    expected = torch.softmax(logits / 1.5, dim=-1)
    shares = torch.bincount(rolled.answer_ids[:, 0], minlength=len(expected)) / 4000
    assert float((shares - expected).abs().max()) < 5 * (0.25 / 4000) ** 0.5
    assert int((shares > 0).sum()) > 5


@torch.no_grad()
def test_answers_end_with_the_end_token_or_at_the_longest_length(atp, make_batch, mixed_problems):
    config = atp.reasoner.config
    rolled = roll_out(
        atp, make_batch(atp, mixed_problems), Sampling(temperature=3.0, max_new_tokens=12), draws=30
    )
    kinds = set()
    for ids, mask, log_probs, finished in zip(
        rolled.answer_ids.tolist(),
        rolled.answer_mask.tolist(),
        rolled.answer_log_probs,
        rolled.finished.tolist(),
        strict=True,
    ):
        kinds.add(finished)
        length = sum(mask)
        assert mask == [1] * length + [0] * (len(mask) - length)
        assert (config.eos_token_id in ids[:length]) == finished
        assert config.eos_token_id not in ids[: length - 1]
        assert set(ids[length:]) <= {config.pad_token_id}
        assert bool((log_probs[length:] == 0).all())
        if not finished:
            assert length == 12
    assert kinds == {True, False}


@torch.no_grad()
def test_num_tokens_counts_latents_and_answer_tokens_before_the_end(atp, make_batch, mixed_problems):
    rolled = roll_out(
        atp, make_batch(atp, mixed_problems), Sampling(temperature=3.0, max_new_tokens=5), draws=10, answers=3
    )
    eos = atp.reasoner.config.eos_token_id
    assert bool(rolled.finished.any())
    assert not bool(rolled.finished.all())
    for index in range(len(rolled.answer_ids)):
        latents = int(rolled.slot_mask[index // 3].sum())
        ids = rolled.answer_ids[index].tolist()
        words = ids.index(eos) if eos in ids[: int(rolled.answer_mask[index].sum())] else 5
        assert int(rolled.num_latents[index]) == latents
        assert int(rolled.num_tokens[index]) == latents + words


@torch.no_grad()
def test_selecting_questions_keeps_their_trajectories(atp, make_batch, mixed_problems):
    rolled = roll_out(atp, make_batch(atp, mixed_problems), Sampling(max_new_tokens=8), draws=2, answers=3)
    part = rolled.select(slice(2, 4))
    assert (part.draws, part.answers) == (2, 3)
    assert torch.equal(part.question_ids, rolled.question_ids[2:4])
    assert torch.equal(part.chain_keys, rolled.chain_keys[4:8])
    # Slots and tokens that none of them uses may be cut off.
    slots = part.slot_mask.shape[1]
    assert torch.equal(part.latents, rolled.latents[4:8, :slots])
    assert torch.equal(part.slot_mask, rolled.slot_mask[4:8, :slots])
    assert int(rolled.slot_mask[4:8, slots:].sum()) == 0
    steps = part.stop_mask.shape[1]
    assert torch.equal(part.stops, rolled.stops[4:8, :steps])
    assert int(rolled.stop_mask[4:8, steps:].sum()) == 0
    length = part.answer_ids.shape[1]
    assert torch.equal(part.answer_ids, rolled.answer_ids[12:24, :length])
    assert int(rolled.answer_mask[12:24, length:].sum()) == 0
    assert int(part.answer_mask[:, -1].sum()) > 0
    assert torch.equal(part.num_tokens, rolled.num_tokens[12:24])


@pytest.mark.parametrize("method", ["coconut", "atp_latent"])
@torch.no_grad()
def test_answers_from_its_own_latents_are_the_greedy_answers(method, make_system, make_batch, mixed_problems):
    system = make_system(method)
    batch = make_batch(system, mixed_problems)
    rolled = roll_out(system, batch, Sampling.greedy(7))

    def answers(latents, mask):
        return answer_from(
            system.reasoner,
            batch["question_ids"],
            batch["question_mask"],
            latents,
            mask,
            rolled.chain_keys,
            Sampling.greedy(7),
        )

    assert torch.equal(answers(rolled.latents, rolled.slot_mask), rolled.answer_ids)
    # Slots that are not in use may hold anything; those in use matter.
    unused = ~rolled.slot_mask.bool().unsqueeze(2)
    other = torch.where(unused, torch.full_like(rolled.latents, 9.0), rolled.latents)
    assert torch.equal(answers(other, rolled.slot_mask), rolled.answer_ids)
    assert not torch.equal(answers(-rolled.latents, rolled.slot_mask), rolled.answer_ids)


def numbers_read(monkeypatch):
    """Records the inputs of the mixer, one for each random number that is read from now on."""
    read = []
    for name in ("gaussian", "gumbel"):
        made = getattr(counter_rng, name)

        def watched(keys, count, first=0, made=made):
            numbers = made(keys, count, first) if first else made(keys, count)
            read.append(
                (
                    keys.unsqueeze(-1) + torch.arange(first + 1, first + count + 1) * counter_rng._GOLDEN
                ).flatten()
            )
            return numbers

        monkeypatch.setattr(counter_rng, name, watched)
    return read


def test_no_random_number_is_read_twice(atp, clock_tokenizer, make_batch, mixed_problems, monkeypatch):
    """Latents, repeated stops, several answers and drawn plans: all numbers of a rollout are its own."""
    batch = make_batch(atp, mixed_problems)
    read = numbers_read(monkeypatch)
    sampling = Sampling(temperature=3.0, max_new_tokens=6)
    rolled = generate(
        atp.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(mixed_problems)),
        seed=0,
        sampling=sampling,
        draws=2,
        answers=3,
    )
    latents = rolled.latents.shape[0] * atp.reasoner.config.num_slots * atp.reasoner.config.hidden_size
    assert sum(part.numel() for part in read) > latents + rolled.answer_mask.sum() * len(clock_tokenizer)
    sample_plans(atp.step_decoder, clock_tokenizer, rolled, temperature=1.0, max_new_tokens=4)
    numbers = torch.cat(read)
    assert numbers.unique().numel() == numbers.numel()


def test_repeated_stops_read_numbers_of_their_own(atp, make_batch, mixed_problems, monkeypatch):
    """The latents' numbers are the same on purpose; those of stops and tokens are not."""
    batch = make_batch(atp, mixed_problems)
    read = numbers_read(monkeypatch)
    monkeypatch.setattr(counter_rng, "gaussian", lambda keys, width: torch.randn(*keys.shape, width))
    generate(
        atp.reasoner.eval(),
        batch["question_ids"],
        batch["question_mask"],
        torch.arange(len(mixed_problems)),
        seed=0,
        sampling=Sampling(temperature=3.0, max_new_tokens=3),
        stops=3,
        answers=2,
    )
    numbers = torch.cat(read)
    assert numbers.unique().numel() == numbers.numel()


def test_latents_say_nothing_about_the_draws_that_follow():
    """Each dimension of every slot against the noise of stops and tokens, over 20,000 trajectories.

    Once the noise of latent 2 gave away the first answer: u = exp(-(a² + b²) / 2) for two of its dimensions.
    """
    keys, width, classes = trajectory_keys(5, torch.arange(20_000), 1), 6, 4
    latents = counter_rng.slots(keys, 6, width).flatten(1)
    later = [
        counter_rng.gumbel(counter_rng.derive(keys, counter_rng.Stream.STOP, 0, step), 2) for step in range(6)
    ]
    later += [
        counter_rng.gumbel(counter_rng.derive(keys, counter_rng.Stream.TOKEN, 0, 0, place), classes)
        for place in range(6)
    ]
    later += [
        counter_rng.gumbel(counter_rng.derive(keys, counter_rng.Stream.TOKEN, 0, 1, place), classes)
        for place in range(3)
    ]
    drawn = torch.cat(later, dim=1)
    # In pairs too: two dimensions together made one uniform number.
    radius = latents.unflatten(1, (-1, 2, width // 2)).square().sum(dim=2).flatten(1)
    for features in (latents, latents.square(), radius):
        both = torch.cat([features, drawn], dim=1)
        correlation = torch.corrcoef(both.double().T)[: features.shape[1], features.shape[1] :]
        assert float(correlation.abs().max()) < 5.5 / math.sqrt(len(keys))
