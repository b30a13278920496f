"""CoLaR: groups of tokens by hand, its objectives by explicit loops, and the factor chosen after training."""

import math

import pytest
import torch

from latentplan.methods.colar import collate_groups, compress
from latentplan.modeling import counter_rng
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.solve import question_batch, solve
from latentplan.training.trainable_model import make_processor

KEYS = range(200)


def key_of(factor, tokens=range(7), most=12):
    return next(key for key in KEYS if compress(tokens, 5, most, key).factor == factor)


def test_groups_by_hand():
    assert compress(range(7), 5, 12, key_of(3)).groups == [[0, 1, 2], [3, 4, 5], [6]]
    assert compress(range(7), 5, 12, key_of(1)).groups == [[token] for token in range(7)]
    assert compress(range(7), 5, 2, key_of(2)).groups == [[0, 1], [2, 3, 4, 5, 6]]
    assert compress([], 5, 12, 0).groups == []


def test_factors_and_tokens_are_drawn_evenly():
    parts = [compress(range(10), 5, 12, key) for key in range(5000)]
    for factor in range(1, 6):
        share = sum(part.factor == factor for part in parts) / len(parts)
        assert share == pytest.approx(0.2, abs=0.02)
    fives = [part for part in parts if part.factor == 5]
    assert {part.drawn[0] for part in fives} == {0, 1, 2, 3, 4}
    assert all(drawn in group for part in parts for drawn, group in zip(part.drawn, part.groups, strict=True))


def test_a_batch_of_groups_by_hand():
    """Chains of 3 and 1 tokens, two at a time, in 3 slots; 99 ends a chain."""
    key = key_of(2)
    long, short = compress([5, 6, 7], 5, 12, key), compress([8], 5, 12, key)
    batch = collate_groups([long, short], 3, end=99)
    assert batch["group_ids"].tolist() == [5, 6, 7, 99, 8, 99]
    assert batch["group_slots"].tolist() == [0, 0, 1, 2, 3, 4]
    assert batch["drawn_tokens"].tolist() == [*long.drawn, 99, 8, 99]
    assert batch["drawn_slots"].tolist() == [0, 1, 2, 3, 4]
    assert batch["decided"].tolist() == [[1, 1, 1], [1, 1, 0]]


def one_row(system, tokenizer, problem, key):
    """Token, embedding and end losses of a row, its chain read through the plain backbone."""
    reasoner, config = system.reasoner, system.reasoner.config
    processor = make_processor(tokenizer, reasoner)
    encoded = processor(problem)
    part = compress(
        processor.written(encoded.steps), system.method.settings.compression_factor, config.num_slots, key
    )
    table = reasoner.get_input_embeddings().weight.detach()
    end = processor.end_latent
    compressed = [table[group].sum(dim=0) / math.sqrt(len(group)) for group in part.groups]
    question = encoded.question + [processor.start_latent] * part.factor
    text = [end, *encoded.answer]
    sequence = torch.cat([table[question], torch.stack(compressed), table[text]])
    with torch.no_grad():
        hidden = reasoner.backbone.base_model(inputs_embeds=sequence[None]).last_hidden_state[0]
        log_probs = reasoner.logits(hidden).double().log_softmax(dim=-1)
        before = slice(len(question) - 1, len(question) + len(compressed))
        distribution = reasoner.latent_head(hidden[before])
    targets = [*compressed, table[end]]
    tokens = [-log_probs[before][slot, token].item() for slot, token in enumerate([*part.drawn, end])]
    unit, embedding = 0.2, []
    for target, mean, log_variance in zip(targets, distribution.mean, distribution.log_variance, strict=True):
        dims = []
        for value, m, v in zip(target.tolist(), mean.tolist(), log_variance.tolist(), strict=True):
            deviation = math.exp(0.5 * v) / unit  # in units of the embeddings' deviation
            scaled = (value - m) / unit / deviation
            dims.append(0.5 * scaled**2 + math.log(deviation) + 0.5 * math.log(2 * math.pi))
        embedding.append(sum(dims) / len(dims))
    latents = distribution.sample(counter_rng.slots(torch.tensor([key]), len(targets), config.hidden_size)[0])
    stops = reasoner.stop_head(latents).double().log_softmax(dim=-1)
    ends = [-stops[slot, int(slot == len(compressed))].item() for slot in range(len(targets))]
    place = len(question) + len(compressed)
    answer = [-log_probs[place + index, token].item() for index, token in enumerate(text[1:])]
    return {"tokens": tokens, "embedding": embedding, "end": ends, "text": answer}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_part_by_hand(family, make_system, make_batch, mixed_problems, clock_tokenizer):
    system = make_system("colar", family=family, max_latent_steps=40)
    problems, keys = [mixed_problems[0], mixed_problems[3]], [4, 5]
    outputs = system(**make_batch(system, problems, keys=keys))
    rows = [
        one_row(system, clock_tokenizer, problem, key) for problem, key in zip(problems, keys, strict=True)
    ]
    total = 0.0
    for name in ("text", "tokens", "embedding", "end"):
        values = [value for row in rows for value in row[name]]
        assert outputs[f"loss/{name}"].item() == pytest.approx(sum(values) / len(values), rel=1e-4), name
        total += sum(values) / len(values)
    assert outputs["loss"].item() == pytest.approx(total, rel=1e-4)


def test_a_batch_learned_by_heart_is_answered_at_every_factor(
    make_system, make_batch, mixed_problems, as_loaded
):
    problems = [mixed_problems[0], mixed_problems[2]]  # 1 and 2 steps
    settings = {"method_settings": {"compression_factor": 2}, "tokens_per_latent": 2}
    system = make_system("colar", **settings, max_latent_steps=40, initial_log_variance=-2.0)
    optimizer = torch.optim.Adam(system.parameters(), lr=0.005)
    for step in range(350):
        optimizer.param_groups[0]["lr"] = 0.005 * (1 - step / 350)
        optimizer.zero_grad()
        system(**make_batch(system, problems, keys=range(2 * step, 2 * step + 2)))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
    loaded = as_loaded(system)
    used = []
    for factor in (1, 2):
        loaded.reasoner.config.set_tokens_per_latent(factor)
        solved = solve(loaded, [problem.question for problem in problems], Sampling.greedy(8))
        for problem, (solution,) in zip(problems, solved, strict=True):
            assert solution.completion.startswith(f"### {problem.answer}")
        used.append(sum(solution.num_latents for (solution,) in solved))
    assert used[1] < used[0]


def test_the_factor_is_told_by_start_tokens(make_system, as_loaded, clock_tokenizer):
    loaded = as_loaded(make_system("colar"))
    loaded.reasoner.config.set_tokens_per_latent(3)
    ids, _ = question_batch(loaded, ["( 1 + 2 )"])
    assert ids[0, -3:].tolist() == [loaded.processor.start_latent] * 3
    assert ids[0, -4] != loaded.processor.start_latent


def test_a_latent_of_several_slots_is_refused(make_system, make_batch, mixed_problems):
    system = make_system("colar", latents_per_step=2)
    with pytest.raises(ValueError, match="set latents_per_step to 1"):
        make_batch(system, mixed_problems)


def test_only_latents_that_stand_for_tokens_have_a_factor(make_system, as_loaded):
    loaded = as_loaded(make_system("colar"))
    loaded.reasoner.config.set_tokens_per_latent(2)
    assert loaded.reasoner.config.tokens_per_latent == 2
    with pytest.raises(ValueError, match="the latents of coconut stand for steps"):
        make_system("coconut").reasoner.config.set_tokens_per_latent(2)
