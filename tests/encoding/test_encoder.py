import pytest
import torch

from latentplan.encoding.processor import IGNORE, ProblemProcessor, collate
from latentplan.encoding.tokenizers import train_word_level
from latentplan.problems.problem import Problem

PROBLEM = Problem(
    "the dial starts at 7 . it doubles .", ("<<7*2=3>>", "<<3+1=4>>", "<<4-2=2>>"), "2", modulus=11
)


@pytest.fixture(scope="module")
def processor(clock_tokenizer):
    return ProblemProcessor(clock_tokenizer)


@pytest.fixture(scope="module")
def written(clock_tokenizer):
    """Token ids as a string, one token a word; the tokens' own spelling, so no decoder is involved."""
    return lambda ids: " ".join(clock_tokenizer.convert_ids_to_tokens(ids)).replace("\n", "⏎")


def row_of(processor, problem=PROBLEM, *, stage, latent_steps=2, fixed=False):
    return processor.row(
        processor(problem), stage=stage, max_latent_steps=latent_steps, latents_per_step=2, fixed=fixed
    )


def test_the_layout_token_by_token_at_stage_1(processor, written):
    row = row_of(processor, stage=1)
    assert written(row.question) == "the dial starts at 7 . it doubles . ⏎ <|start-latent|>"
    assert (row.slots, row.used_slots) == (2, 2)
    assert written(row.text) == "<|end-latent|> << 3 + 1 = 4 >> ⏎ << 4 - 2 = 2 >> ⏎ ### 2 <|eos|>"
    assert [written(step) for step in row.decoded_steps] == ["<< 7 * 2 = 3 >> <|eos|>"]


def test_the_last_stage_has_no_text_step_and_merges_the_rest_of_a_long_chain(processor, written):
    row = row_of(processor, stage=2)
    assert (row.slots, row.used_slots) == (4, 4)
    assert written(row.text) == "<|end-latent|> ### 2 <|eos|>"
    assert [written(step) for step in row.decoded_steps] == [
        "<< 7 * 2 = 3 >> <|eos|>",
        "<< 3 + 1 = 4 >> ⏎ << 4 - 2 = 2 >> <|eos|>",
    ]


def test_stage_0_is_written_chain_of_thought_without_latent_tokens(processor, written):
    row = row_of(processor, stage=0)
    assert written(row.question) == "the dial starts at 7 . it doubles . ⏎"
    assert (row.slots, row.used_slots, row.decoded_steps) == (0, 0, [])
    assert written(row.text) == "<< 7 * 2 = 3 >> ⏎ << 3 + 1 = 4 >> ⏎ << 4 - 2 = 2 >> ⏎ ### 2 <|eos|>"


def test_a_short_problem_uses_fewer_slots_unless_their_number_is_fixed(processor):
    short = Problem(PROBLEM.question, PROBLEM.steps[:1], "3")
    assert row_of(processor, short, stage=2).used_slots == 2
    assert row_of(processor, short, stage=2, fixed=True).used_slots == 4
    assert row_of(processor, short, stage=2, fixed=True).slots == 4


def test_without_steps_only_question_and_answer_remain(processor, written):
    row = processor.row_without_steps(processor(PROBLEM))
    assert written(row.question) == "the dial starts at 7 . it doubles . ⏎"
    assert written(row.text) == "### 2 <|eos|>"


def test_separator_and_marker_are_settings(clock_tokenizer, written):
    processor = ProblemProcessor(clock_tokenizer, step_separator="", answer_marker="=")
    assert written(row_of(processor, stage=0).text).endswith("<< 4 - 2 = 2 >> = 2 <|eos|>")


def test_problems_encoded_together_are_as_one_by_one(processor, mixed_problems):
    together = processor.encode_all([*mixed_problems, mixed_problems[0]])
    assert together == [processor(problem) for problem in [*mixed_problems, mixed_problems[0]]]
    # What a rollout reads is what training reads.
    questions = [processor.question(problem.question) for problem in mixed_problems]
    assert [encoded.question for encoded in together[:6]] == questions


def test_a_beginning_of_sequence_token_starts_the_question(clock_tokenizer):
    class WithStart:
        bos_token_id = 777

        def __getattr__(self, name):
            return getattr(clock_tokenizer, name)

    assert ProblemProcessor(WithStart()).question("it doubles .")[0] == 777
    assert ProblemProcessor(clock_tokenizer).question("it doubles .")[0] != 777


def test_a_tokenizer_without_the_latent_tokens_is_refused():
    with pytest.raises(ValueError, match="add_special_tokens"):
        ProblemProcessor(train_word_level(["a b c"]))


def test_collation_pads_questions_on_the_left_and_text_on_the_right(processor, clock_tokenizer):
    pad = clock_tokenizer.pad_token_id
    short = Problem("it doubles .", PROBLEM.steps[:1], "3")
    rows = [row_of(processor, stage=2), row_of(processor, short, stage=2)]
    batch = collate(rows, [5, 9], pad)
    assert batch["question_ids"].tolist() == [
        rows[0].question,
        [pad] * (len(rows[0].question) - len(rows[1].question)) + rows[1].question,
    ]
    assert batch["question_mask"].sum(1).tolist() == [len(row.question) for row in rows]
    assert batch["question_mask"][:, -1].tolist() == [1, 1]
    assert batch["slot_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["text_ids"].tolist() == [row.text for row in rows]
    assert batch["noise_keys"].tolist() == [5, 9]
    # <|end-latent|> is given, not learned.
    assert batch["labels"].tolist() == [[IGNORE, *row.text[1:]] for row in rows]
    # Pairs: both steps of row 0, the one step of row 1.
    assert batch["step_row"].tolist() == [0, 0, 1]
    assert batch["step_index"].tolist() == [0, 1, 0]
    longest = len(rows[0].decoded_steps[1])
    assert batch["step_ids"].shape == (3, longest)
    ids = rows[1].decoded_steps[0]
    assert batch["step_ids"][2].tolist() == ids + [pad] * (longest - len(ids))
    assert batch["step_labels"][2].tolist() == ids + [IGNORE] * (longest - len(ids))


def test_text_of_different_lengths_is_padded_on_the_right(processor, clock_tokenizer):
    pad = clock_tokenizer.pad_token_id
    short = Problem("it doubles .", PROBLEM.steps[:1], "3")
    rows = [row_of(processor, stage=0), row_of(processor, short, stage=0)]
    batch = collate(rows, [0, 1], pad)
    padding = len(rows[0].text) - len(rows[1].text)
    assert padding > 0
    assert batch["text_ids"][1].tolist() == rows[1].text + [pad] * padding
    assert batch["text_mask"][1].tolist() == [1] * len(rows[1].text) + [0] * padding
    # Without latents the first token is learned too.
    assert batch["labels"][1].tolist() == rows[1].text + [IGNORE] * padding
    assert batch["slot_mask"].shape == (2, 0)
    assert batch["step_ids"].shape[0] == 0


def test_all_tensors_are_integers(processor, clock_tokenizer):
    batch = collate([row_of(processor, stage=1)], [0], clock_tokenizer.pad_token_id)
    assert {tensor.dtype for tensor in batch.values()} == {torch.long}


def test_rows_of_different_stages_are_not_mixed(processor, clock_tokenizer):
    rows = [row_of(processor, stage=1), row_of(processor, stage=2)]
    with pytest.raises(ValueError, match=r"one curriculum stage.*\[2, 4\]"):
        collate(rows, [0, 1], clock_tokenizer.pad_token_id)
