"""Every objective against explicit loops over rows, slots and tokens, on a batch of 1 and 3 steps.

The loops take the model's logits and distributions, one row at a time without padding, and nothing of
`methods.losses`.
"""

import math
from dataclasses import replace

import pytest
import torch

from latentplan.methods.base import methods
from latentplan.methods.losses import Objective
from latentplan.modeling.thinking import unroll

SIZE = 2  # latents_per_step
ELSEWHERE = ("codi", "pccot", "colar")  # have objectives of their own, tested in files of their own


# Rows by their indices in `mixed_problems`, whose numbers of steps are 1, 4, 2, 3, 1, 4.
DRAWN = {"1 and 3 steps": (0, 3), "1 step each": (0, 4), "2 steps": (2,), "1 and 2 steps": (0, 2, 4)}


@pytest.fixture
def two_rows(mixed_problems):
    return [mixed_problems[0], mixed_problems[3]]  # 1 and 3 steps


def log_probability(logits, token):
    """log softmax of a list of numbers, by hand."""
    highest = max(logits)
    return logits[token] - highest - math.log(sum(math.exp(value - highest) for value in logits))


def by_hand(system, make_batch, problems, stage, keys):
    """For each row alone: token losses of the text, of each step, of each slot's stop, and each slot's KL."""
    rows = []
    for problem, key in zip(problems, keys, strict=True):
        batch = make_batch(system, [problem], stage, keys=[key])
        with torch.no_grad():
            rows.append(one_row(system, batch))
    return rows


def one_row(system, batch):
    reasoner = system.reasoner
    used = int(batch["slot_mask"].sum())
    context = reasoner.start(batch["question_ids"], batch["question_mask"])
    chain = unroll(reasoner, context, batch["slot_mask"], batch["noise_keys"])
    # The whole used sequence through the plain backbone, without a cache or a mask.
    sequence = torch.cat(
        [
            reasoner.embed(batch["question_ids"]),
            chain.latents[:, :used],
            reasoner.embed(batch["text_ids"]),
        ],
        dim=1,
    )
    logits = reasoner.backbone(inputs_embeds=sequence).logits[0].tolist()
    start = batch["question_ids"].shape[1] + used
    tokens = batch["text_ids"][0].tolist()
    first = 1 if batch["slot_mask"].shape[1] else 0  # <|end-latent|> is given
    text = [-log_probability(logits[start + i - 1], tokens[i]) for i in range(first, len(tokens))]
    steps = []
    if system.step_decoder is not None:
        for index in range(len(batch["step_row"])):
            ids = batch["step_ids"][index][batch["step_labels"][index] != -100]
            inputs = torch.cat(
                [
                    chain.latents[:, index * SIZE : (index + 1) * SIZE],
                    system.step_decoder.get_input_embeddings()(ids[None]),
                ],
                dim=1,
            )
            decoded = system.step_decoder.backbone(inputs_embeds=inputs).logits[0].tolist()
            steps.append(
                sum(-log_probability(decoded[SIZE - 1 + i], token) for i, token in enumerate(ids.tolist()))
            )
    stops = []
    if reasoner.stop_head is not None:
        for slot in range(batch["slot_mask"].shape[1]):
            values = reasoner.stop_head(chain.latents[0, slot]).tolist()
            stops.append(-log_probability(values, 0 if slot < used else 1))
    kl = []
    if chain.log_variance is not None:
        for slot in range(used):
            mean, log_variance = chain.mean[0, slot].tolist(), chain.log_variance[0, slot].tolist()
            dims = [0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(mean, log_variance, strict=True)]
            kl.append(sum(dims) / len(dims))
    return {"text": text, "steps": steps, "stops": stops, "kl": kl}


def expected_parts(rows, num_steps):
    """Each objective; `num_steps` is S, the latent steps of the stage, whatever the rows have of them."""
    text = [loss for row in rows for loss in row["text"]]
    per_step = []
    for step in range(num_steps):
        having = [row["steps"][step] for row in rows if len(row["steps"]) > step]
        if having:
            per_step.append(sum(having) / len(having))
    stops = [sum(row["stops"]) / num_steps for row in rows]
    kl = [value for row in rows for value in row["kl"]]
    return {
        "text": sum(text) / len(text),
        "step_decoder": sum(per_step) / num_steps,
        "stop": sum(stops) / len(stops),
        "kl": sum(kl) / max(1, len(kl)),
    }


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(
    "method", [name for name in methods() if name not in ELSEWHERE]
)  # theirs have files of their own
@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN.keys())
def test_every_objective_by_hand(method, stage, drawn, make_system, make_batch, mixed_problems):
    """Also where the drawn problems have fewer steps than the stage: each divides by S all the same."""
    problems, keys = [mixed_problems[index] for index in drawn], [4 + index for index in drawn]
    weights = {"text": 0.7, "step_decoder": 1.3, "stop": 0.4, "kl": 0.11}
    system = make_system(method)
    objectives = {name: weights[name] for name in system.weights}
    system = make_system(method, objectives=objectives)
    outputs = system(**make_batch(system, problems, stage, keys=keys))
    rows = by_hand(system, make_batch, problems, stage, keys)
    expected = expected_parts(rows, stage)
    for name in objectives:
        assert outputs[f"loss/{name}"].item() == pytest.approx(expected[name], rel=1e-4), name
    total = sum(weight * expected[name] for name, weight in objectives.items())
    assert outputs["loss"].item() == pytest.approx(total, rel=1e-4)
    assert set(outputs) == {"loss", *(f"loss/{name}" for name in objectives)}


def test_default_weights_are_the_paper_s(make_system):
    assert make_system("atp_latent").weights == {"text": 1.0, "step_decoder": 1.0, "stop": 1.0, "kl": 1e-3}
    assert make_system("sim_cot").weights == {"text": 1.0, "step_decoder": 1.0}
    assert make_system("coconut").weights == make_system("cot").weights == {"text": 1.0}


def test_a_text_method_learns_steps_and_no_cot_only_the_answer(make_system, make_batch, two_rows):
    """The number of learned tokens, counted in words: steps, line breaks, marker, answer, end."""
    cot, no_cot = make_system("cot"), make_system("no_cot")
    steps = sum(8 * len(problem.steps) for problem in two_rows)  # 7 tokens and a line break
    assert int(cot.num_items(make_batch(cot, two_rows))["text"]) == steps + 2 * 3
    assert int(no_cot.num_items(make_batch(no_cot, two_rows))["text"]) == 2 * 3


@pytest.mark.parametrize("drawn", [(0, 4), (0, 2), (3,), (0, 1, 2, 3)])
def test_the_step_decoder_s_loss_by_hand_where_every_token_costs_log_v(
    drawn, make_system, make_batch, mixed_problems
):
    """A decoder that finds all tokens equally likely: L_dec = ln V · mean over the stage's steps of lengths.

    A step of the clock world has 7 tokens and eos; from step 3 on the rest is joined: 8 more a step.
    """
    system = make_system("sim_cot", objectives={"step_decoder": 1.0})
    with torch.no_grad():
        system.step_decoder.backbone.get_output_embeddings().weight.zero_()
    vocabulary = system.step_decoder.backbone.config.vocab_size
    steps = [len(mixed_problems[index].steps) for index in drawn]
    lengths = {1: [8, 0, 0], 2: [8, 8, 0], 3: [8, 8, 8], 4: [8, 8, 16]}
    per_step = [[lengths[each][s] for each in steps if lengths[each][s]] for s in range(3)]
    expected = sum(sum(each) / len(each) for each in per_step if each) / 3 * math.log(vocabulary)
    batch = make_batch(system, [mixed_problems[index] for index in drawn])
    assert system(**batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


# Micro-batches by indices in `mixed_problems`; in the last three no row has all three steps of the stage.
SPLITS = [
    ((0,), (1,)),
    ((0, 1), (2, 3, 4, 5)),
    ((0, 1, 2, 3, 4), (5,)),
    ((0,), (4,)),
    ((0,), (2,)),
    ((2,), (0, 4)),
]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("method", ["cot", "coconut", "sim_cot", "atp_latent"])
def test_micro_batches_with_summed_numbers_of_items_give_the_loss_of_the_joint_batch(
    method, split, make_system, make_batch, mixed_problems
):
    system = make_system(method)
    first, second = ([mixed_problems[index] for index in part] for part in split)
    joint = system(**make_batch(system, first + second, keys=split[0] + split[1]))
    parts = [make_batch(system, first, keys=split[0]), make_batch(system, second, keys=split[1])]
    each = [system.num_items(part) for part in parts]
    num_items = {name: sum(part[name] for part in each) for name in each[0]}
    shares = [system(num_items=num_items, **part) for part in parts]
    for name, value in joint.items():
        torch.testing.assert_close(sum(share[name] for share in shares), value, rtol=1e-5, atol=1e-6)


def test_numbers_of_items_of_a_batch_by_hand(make_system, make_batch, two_rows):
    system = make_system("atp_latent")
    num_items = system.num_items(make_batch(system, two_rows))  # 1 and 3 steps, all latent
    assert num_items["step_decoder"][:3].tolist() == [2, 1, 1]
    assert num_items["stop"].tolist() == [2]
    assert num_items["kl"].tolist() == [2 + 6]
    assert num_items["text"].tolist() == [2 * 3]  # ###, number, end


def test_a_stage_without_latents_trains_on_text_alone(make_system, make_batch, two_rows):
    """Curriculum stage 0 of the latent methods: no slots, so nothing to decode, to stop or to regularise."""
    system = make_system("atp_latent")
    outputs = system(**make_batch(system, two_rows, stage=0))
    text = make_system("cot", objectives={"text": 1.0})
    text.reasoner.backbone.load_state_dict(system.reasoner.backbone.state_dict())
    expected = text(**make_batch(text, two_rows))["loss"]
    torch.testing.assert_close(outputs["loss"], expected)
    assert [outputs[f"loss/{name}"].item() for name in ("step_decoder", "stop", "kl")] == [0, 0, 0]
    outputs["loss"].backward()


def test_problems_without_any_step_can_be_in_a_batch(make_system, make_batch, two_rows):
    bare = [replace(problem, steps=()) for problem in two_rows]
    for method in ("coconut", "sim_cot", "atp_latent"):
        system = make_system(method)
        outputs = system(**make_batch(system, bare))
        assert torch.isfinite(outputs["loss"])
        outputs["loss"].backward()


def test_an_objective_by_its_old_names_is_accepted_with_a_notice():
    def seven(model, forward, batch):
        return torch.tensor([7.0])

    with pytest.warns(FutureWarning, match=r"Objective\(total=..., count=...\) is now Objective\(loss_sum"):
        old = Objective(total=seven, count=lambda batch: torch.tensor([2]))
    assert old.value(None, None, {}, old.num_items({})).item() == 3.5
    assert replace(old, needs="stop_head").loss_sum is seven
    with pytest.raises(TypeError, match="needs loss_sum and num_items"):
        Objective(seven)
