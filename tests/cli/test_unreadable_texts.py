"""Unknown words, and more tokens than positions, are refused and named wherever text reaches a model."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from test_control_tokens_are_refused import COMMANDS, FINE, GREEDY, app, runner, training, write
from tokenizer_families import make
from transformers import GPT2Config, GPT2LMHeadModel

from latentplan.encoding.unreadable import TooLongError, UnknownWordsError
from latentplan.evaluation.harness import evaluate
from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import solve
from latentplan.serving.server import create_app
from latentplan.training.configs import ModelArguments, SFTConfig
from latentplan.training.model_init import initialise_system

POSITIONS = 48
UNKNOWN, LONG = "Ann has 3 bananas . How many ?", "Ann has 3 pens . " * 20 + "How many ?"
MESSAGES = {UNKNOWN: "no word for 'bananas' in the question", LONG: f"the model's {POSITIONS} positions"}


class Case:
    """A model with learned positions and a vocabulary of words."""

    chat = False

    def __init__(self, folder, question):
        self.question, self.base, self.run = question, folder / "base", folder / "run"
        tokenizer = make("word_level")
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=POSITIONS,
            n_embd=16,
            n_layer=1,
            n_head=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        GPT2LMHeadModel(config).save_pretrained(self.base)
        tokenizer.save_pretrained(self.base)
        settings = SFTConfig(output_dir=str(folder / "none"), max_latent_steps=2, use_cpu=True)
        system, tokenizer = initialise_system(ModelArguments(model_name_or_path=str(self.base)), settings, ())
        system.save_pretrained(self.run / "model", tokenizer)
        self.fine = write(folder / "fine.jsonl", Problem("Ann has 4 pens . How many ?", (), "4"))
        self.file = write(folder / "mine.jsonl", FINE, Problem(question, (), "7"))
        self.loaded = load_model(self.run)
        self.loaded.processor.refuses_unknown_words = True  # as the commands have it


@pytest.fixture(scope="module", params=[UNKNOWN, LONG], ids=["unknown", "long"])
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"), request.param)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_name_file_and_line(name, case, monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTPLAN_CACHE", str(tmp_path / "cache"))
    if name == "visualize":
        pytest.importorskip("matplotlib")
        pytest.importorskip("sklearn")
    if name.startswith("data check") and case.question == LONG:
        pytest.skip("it checks texts, not lengths")
    result = runner.invoke(app, [str(word) for word in COMMANDS[name](case)], env={"COLUMNS": "300"})
    assert result.exit_code == (1 if name.startswith("data check") else 2), result.output
    message = MESSAGES[case.question]
    if case.question == LONG and name.partition(",")[0] not in ("sft", "grpo"):
        message = "the question has"
    assert f"{case.file}:2: " in result.output
    assert message in result.output


def test_a_limit_leaves_long_rows_out(case, tmp_path, monkeypatch):
    if case.question != LONG:
        pytest.skip("of lengths")
    monkeypatch.setenv("LATENTPLAN_CACHE", str(tmp_path / "cache"))
    words = training(case, "sft", "--dataset_name", case.file, "--max_question_tokens", "20")
    assert runner.invoke(app, [str(word) for word in words]).exit_code == 0


def test_ask_the_library_and_the_server(case):
    error = {UNKNOWN: UnknownWordsError, LONG: TooLongError}[case.question]
    result = runner.invoke(app, ["ask", str(case.run), case.question], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "the question" in result.stderr
    with pytest.raises(error, match="question 2 of 2"):
        solve(case.loaded, [FINE.question, case.question], GREEDY)
    with pytest.raises(error):
        evaluate(case.loaded, [FINE, Problem(case.question, (), "7")], sampling=GREEDY)
    with TestClient(create_app({"mine": case.loaded}), base_url="http://localhost") as client:
        answer = client.post("/v1/completions", json={"prompt": case.question})
        code = {UNKNOWN: "unknown_words", LONG: "context_length_exceeded"}[case.question]
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_an_answer_ends_where_the_positions_do(case):
    """GPT-2 has no position beyond its last: a row that reaches it is cut off, its neighbours are not."""
    processor, reasoner = case.loaded.processor, case.loaded.reasoner
    short, long = "Ann has 3 pens . How many ?", "Ann has 3 pens . " * 5 + "How many ?"
    room = [processor.room(len(processor.question(text))) for text in (short, long)]
    assert 0 < room[1] < room[0] < POSITIONS
    alone = [solve(case.loaded, [text], Sampling(1.0, 1.0, 100), seed=3)[0][0] for text in (short, long)]
    for found, most in zip(alone, room, strict=True):
        assert found.num_tokens - found.num_latents <= most + reasoner.config.num_slots
    together = solve(case.loaded, [short, long], Sampling(1.0, 1.0, 100), seed=3)
    assert together[0][0] == alone[0]
