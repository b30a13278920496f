"""CODI's objectives against explicit loops over rows, layers and tokens, without padding or a cache."""

import math

import pytest
import torch

from latentplan.encoding.processor import IGNORE
from latentplan.modeling.thinking import unroll
from latentplan.training.trainable_model import make_processor


@pytest.fixture
def two_rows(mixed_problems):
    return [mixed_problems[0], mixed_problems[3]]  # 1 and 3 steps


def smooth_l1(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def states_and_losses(reasoner, embeds, ids, marker):
    """Every layer before the answer, and the cross-entropy of each of the tokens that end `embeds`."""
    with torch.no_grad():
        outputs = reasoner.backbone(inputs_embeds=embeds, output_hidden_states=True)
    start = embeds.shape[1] - len(ids)
    log_probs = outputs.logits[0].double().log_softmax(dim=-1)
    losses = [-log_probs[start + place - 1, token].item() for place, token in enumerate(ids)]
    # The answer is: marker, number, end; what is about to write the number has read the marker.
    states = [layer[0, embeds.shape[1] - 3].tolist() for layer in outputs.hidden_states]
    assert ids[-3] == marker
    return states, losses


def row_by_hand(system, tokenizer, problem, stage, key, make_batch):
    reasoner, batch = system.reasoner, make_batch(system, [problem], stage, keys=[key])
    encoded = make_processor(tokenizer, reasoner)(problem)
    marker = tokenizer.convert_tokens_to_ids("###")
    separator = make_processor(tokenizer, reasoner).separator
    teacher = [token for step in encoded.steps[:-1] for token in step + separator] + encoded.answer
    question = reasoner.embed(torch.tensor([encoded.question + teacher]))
    teacher_states, teacher_losses = states_and_losses(reasoner, question, teacher, marker)
    context = reasoner.start(batch["question_ids"], batch["question_mask"])
    with torch.no_grad():
        latents = unroll(reasoner, context, batch["slot_mask"], batch["noise_keys"]).latents
    parts = [reasoner.embed(batch["question_ids"]), latents, reasoner.embed(batch["text_ids"])]
    text = batch["text_ids"][0].tolist()
    student_states, text_losses = states_and_losses(reasoner, torch.cat(parts, dim=1), text, marker)
    layers = []
    for mine, theirs in zip(student_states, teacher_states, strict=True):
        distances = [smooth_l1(one - other) for one, other in zip(mine, theirs, strict=True)]
        layers.append(sum(distances) / len(distances) / deviation(theirs))
    return text_losses[1:], teacher_losses, sum(layers) / len(layers)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("stage", [1, 3])
def test_every_part_by_hand(family, stage, make_system, make_batch, two_rows, clock_tokenizer):
    weights = {"text": 0.7, "teacher": 0.3, "distillation": 1.9}
    system = make_system("codi", family=family, objectives=weights)
    outputs = system(**make_batch(system, two_rows, stage, keys=[4, 5]))
    rows = [
        row_by_hand(system, clock_tokenizer, problem, stage, key, make_batch)
        for problem, key in zip(two_rows, (4, 5), strict=True)
    ]
    text = [loss for row in rows for loss in row[0]]
    teacher = [loss for row in rows for loss in row[1]]
    expected = {
        "text": sum(text) / len(text),
        "teacher": sum(teacher) / len(teacher),
        "distillation": (rows[0][2] + rows[1][2]) / 2,
    }
    for name, value in expected.items():
        assert outputs[f"loss/{name}"].item() == pytest.approx(value, rel=1e-4), name
    total = sum(weight * expected[name] for name, weight in weights.items())
    assert outputs["loss"].item() == pytest.approx(total, rel=1e-4)


def test_the_teacher_learns_from_its_text_alone(make_system, make_batch, two_rows):
    """Its states are what the student is drawn to, and give no gradient themselves."""
    system = make_system("codi", objectives={"distillation": 1.0})
    batch = make_batch(system, two_rows)
    passed = system.method.forward(system.reasoner, batch)
    passed.teacher_states.retain_grad()
    passed.student_states.retain_grad()
    count = system.num_items(batch)["distillation"]
    system.objectives["distillation"].value(system, passed, batch, count).backward()
    assert passed.teacher_states.grad is None
    assert bool(passed.student_states.grad.abs().sum() > 0)


def test_the_teacher_s_last_step_is_left_out(make_system, make_batch, two_rows):
    """1 step: only the answer of 3 tokens; 3 steps: two of 7 tokens and a line break each, and the answer."""
    batch = make_batch(make_system("codi"), two_rows)
    assert batch["teacher_mask"].sum(dim=1).tolist() == [3, 2 * 8 + 3]
    assert batch["teacher_start"].tolist() == [1, 17]
    assert batch["text_start"].tolist() == [2, 2]  # <|end-latent|>, marker
    assert int((batch["labels"] != IGNORE).sum()) == 6


def test_a_composition_no_paper_has_learns(make_system, make_batch, mixed_problems, overfit):
    """ATP-Latent's heads and decoder, stage by stage, with CODI's teacher."""
    parts = {"text": 1.0, "teacher": 1.0, "distillation": 1.0, "step_decoder": 1.0, "stop": 1.0, "kl": 1e-3}
    system = make_system(
        "codi", latent_head="gaussian", stop_head=True, objectives=parts, initial_log_variance=-4.0
    )
    outputs = system(**make_batch(system, mixed_problems, stage=2))
    assert set(outputs) == {"loss", *(f"loss/{name}" for name in parts)}
    bound = 0.1 * outputs["loss"].item()
    assert overfit(system, mixed_problems, bound=bound, steps=200) < bound
