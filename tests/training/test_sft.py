"""Supervised runs end to end, and that how a batch is split changes nothing."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from latentplan.encoding.token_store import encode_problems
from latentplan.encoding.tokenizers import SPECIAL_TOKENS, problem_texts, train_word_level
from latentplan.modeling.loading import load_model
from latentplan.problems.fingerprint import fingerprint
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.training_set import DataArguments, load_training_problems
from latentplan.training.configs import ModelArguments
from latentplan.training.model_init import initialise_system
from latentplan.training.sft_trainer import make_curriculum
from latentplan.training.trainable_model import make_processor


def metrics_of(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_its_settings_its_record_and_its_metrics(run_sft, tmp_path):
    run = run_sft(tmp_path / "run", learning_rate=1e-3)
    assert load_model(run.path).reasoner.config.method == "atp_latent"
    settings = yaml.safe_load((run.path / "config.yaml").read_text())
    assert (settings["learning_rate"], settings["dataset_size"], settings["method"]) == (
        0.001,
        40,
        "atp_latent",
    )
    record = json.loads((run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["data"]["num_problems"] == 40
    expected = generate(PRESETS["clock"], split="train", count=40, seed=0)
    assert record["data"]["fingerprint"] == fingerprint(expected)
    assert record["curriculum"] == {"stages": [1, 2, 3], "starts": [0, 3, 6]}
    rows = metrics_of(run)
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["stage"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for row in rows:
        parts = [row[f"loss/{name}"] for name in ("text", "step_decoder", "stop", "kl")]
        assert row["loss"] == pytest.approx(sum(parts[:3]) + 1e-3 * parts[3], rel=1e-3)
        assert row["grad_norm"] > 0
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(rows))
    # Cosine over the last stage of 3 steps.
    assert [round(row["learning_rate"] / 1e-3, 3) for row in rows] == [1, 1, 1, 1, 1, 1, 1, 0.75, 0.25]
    # Checkpoints make room for the model.
    assert not list(run.path.glob("checkpoint-*"))
    assert not list(run.path.glob(".*"))


def test_training_lowers_the_loss(run_sft, tmp_path):
    rows = metrics_of(
        run_sft(tmp_path / "run", method="cot", curriculum_steps=[60], learning_rate=0.01, save_strategy="no")
    )
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


@pytest.mark.parametrize("method", ["sim_cot", "atp_latent"])
def test_accumulated_micro_batches_equal_the_whole_batch(method, run_sft, assert_same_weights, tmp_path):
    common = {"method": method, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.1}
    whole = run_sft(tmp_path / "whole", **common)
    parts = run_sft(
        tmp_path / "parts", **common, per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    assert_same_weights(whole.path, parts.path, tolerance=1e-6)
    for one, other in zip(metrics_of(whole), metrics_of(parts), strict=True):
        for name in ("loss", "loss/text", "loss/step_decoder"):
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_the_seed_decides_everything(run_sft, assert_same_weights, weights_of, tmp_path):
    one, two = (run_sft(tmp_path / name, save_strategy="no") for name in "ab")
    assert_same_weights(one.path, two.path)
    other = run_sft(tmp_path / "c", save_strategy="no", seed=4)
    first, second = weights_of(one.path), weights_of(other.path)
    assert not any(torch.equal(first[name], second[name]) for name in first if name.endswith("q_proj.weight"))


@pytest.mark.parametrize("reset", [True, False])
def test_the_optimizer_forgets_when_a_stage_begins(reset, run_sft, tmp_path):
    """Adam's step from empty moments is ± the rate in every weight with a gradient, whatever came before."""
    common = {"lr_scheduler_type": "constant", "reset_optimizer": reset, "save_strategy": "no"}
    before = run_sft(tmp_path / "before", curriculum_stages=[1], curriculum_steps=[3], **common)
    after = run_sft(tmp_path / "after", curriculum_stages=[1, 2], curriculum_steps=[3, 1], **common)
    old = load_model(before.path).reasoner.latent_head.mean.weight
    new = load_model(after.path).reasoner.latent_head.mean.weight
    steps = (new - old).abs() / 3e-3
    full = float(((steps - 1).abs() < 0.01).float().mean())
    assert full > 0.99 if reset else full < 0.9  # a gradient near Adam's epsilon makes a shorter step


@pytest.mark.parametrize("earlier", ["cot", "coconut"])
def test_a_run_can_start_from_another_method_s_model(earlier, run_sft, sft_config, trained, tmp_path):
    """Tokenizer, backbone and the decoder's start are those of the earlier run."""
    start = ModelArguments(model_name_or_path=str(trained(earlier)))
    before = load_model(trained(earlier))
    system, tokenizer = initialise_system(start, sft_config(tmp_path / "unused"), [])
    assert tokenizer.get_vocab() == before.tokenizer.get_vocab()
    latent_tokens = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    others = [index for index in range(len(tokenizer)) if index not in latent_tokens]
    for name, weight in before.reasoner.backbone.state_dict().items():
        for part in (system.reasoner, system.step_decoder):
            new = part.backbone.state_dict()[name]
            if earlier == "cot" and ("embed_tokens" in name or "lm_head" in name):
                # A model of text has not learned the latent tokens: they start as the mark of an equation.
                marker = new[tokenizer.convert_tokens_to_ids("<<")]
                assert torch.equal(new[others], weight[others]), name
                assert torch.equal(new[latent_tokens], marker.expand(3, -1)), name
            else:
                assert torch.equal(new, weight), name
    run = run_sft(tmp_path / "run", model=start, save_strategy="no")
    assert load_model(run.path).reasoner.config.method == "atp_latent"


def test_a_plain_language_model_gets_the_latent_tokens(make_backbone, sft_config, tmp_path):
    problems = list(generate(PRESETS["clock"], split="train", count=30, seed=0))
    tokenizer = train_word_level(problem_texts(problems))
    backbone = make_backbone(vocab_size=len(tokenizer))
    folder = tmp_path / "plain"
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    system, extended = initialise_system(
        ModelArguments(model_name_or_path=str(folder)), sft_config(tmp_path / "unused"), problems
    )
    table, marker = system.reasoner.get_input_embeddings().weight, tokenizer.convert_tokens_to_ids("<<")
    assert torch.equal(table[: len(tokenizer)], backbone.get_input_embeddings().weight)
    for token in SPECIAL_TOKENS:
        assert torch.equal(table[extended.convert_tokens_to_ids(token)], table[marker])
    config = system.reasoner.config
    assert extended.convert_ids_to_tokens([config.start_latent_token_id, config.end_latent_token_id]) == [
        "<|start-latent|>",
        "<|end-latent|>",
    ]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelArguments(), "model_name_or_path .* or backbone_config"),
        (ModelArguments(backbone_config={}, tokenizer="runes"), "tokenizer must be one of"),
    ],
)
def test_a_run_needs_something_to_start_from(model, message, sft_config, tmp_path):
    with pytest.raises(ValueError, match=message):
        initialise_system(model, sft_config(tmp_path), [])


def test_long_problems_are_left_out(make_system, clock_tokenizer, mixed_problems):
    processor = make_processor(clock_tokenizer, make_system("cot").reasoner)
    # 7 tokens an equation; marker, number and end: steps of 1, 4, 2, 3, 1, 4.
    encoded, kept = encode_problems(mixed_problems, processor, DataArguments(max_text_tokens=2 * 7 + 3))
    assert [len(problem.steps) for problem in kept] == [1, 2, 1]
    assert len(encoded) == 3
    longest = max(len(processor.question(problem.question)) for problem in mixed_problems)
    _, kept = encode_problems(mixed_problems, processor, DataArguments(max_question_tokens=longest - 1))
    assert 0 < len(kept) < 6
    with pytest.raises(ValueError, match="none of 6 problems is short enough"):
        encode_problems(mixed_problems, processor, DataArguments(max_text_tokens=1))


def test_evaluation_questions_are_removed_from_training(tmp_path):
    file = tmp_path / "evaluation.jsonl"
    problems = list(generate(PRESETS["clock"], split="train", count=40, seed=0))
    file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems[10:15]))
    kept, removed = load_training_problems(DataArguments(dataset_size=40, exclude_benchmarks=[str(file)]))
    assert removed == 5
    assert kept == problems[:10] + problems[15:]
    joined, _ = load_training_problems(DataArguments(dataset_name=["minigsm", str(file)], dataset_size=40))
    assert [problem.question for problem in joined] == [
        problem.question for problem in problems + problems[10:15]
    ]
    with pytest.raises(ValueError, match="no training problem"):
        load_training_problems(DataArguments(dataset_name=[str(file)], exclude_benchmarks=[str(file)]))
    with pytest.raises(ValueError, match="minigsm preset"):
        load_training_problems(DataArguments(dataset_config="sundial"))


def test_paths_of_the_run_are_those_that_were_asked_for(run_sft, tmp_path):
    run = run_sft(tmp_path / "deep" / "er", method="no_cot", save_strategy="no")
    assert run.path == Path(tmp_path / "deep" / "er")
    assert run.record["name"] == "er"


def test_stages_beyond_the_latent_steps_are_refused(sft_config, tmp_path):
    config = sft_config(tmp_path, curriculum_stages=[1, 4], max_latent_steps=3)
    with pytest.raises(ValueError, match="go beyond max_latent_steps=3"):
        make_curriculum(config)


def test_a_latent_method_goes_through_the_stages_1_to_k(sft_config, tmp_path):
    config = sft_config(tmp_path, curriculum_steps=[5, 5, 10], max_latent_steps=3)
    curriculum = make_curriculum(config)
    assert (curriculum.stages, curriculum.steps) == ((1, 2, 3), (5, 5, 10))
