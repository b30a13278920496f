import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.rewards.plan_rewards import (
    coherence_paper,
    coherence_strict,
    paper_coherence,
    strict_coherence,
)

CASES = {
    "a chain to the answer": (["<<16-3-4=9>>", "<<9*2=18>>"], "18", 1, 1),
    "one step": (["<<1+2=3>>"], "3", 1, 1),
    "the answer is another": (["<<16-3-4=9>>", "<<9*2=18>>"], "19", 1 / 2, 1 / 2),
    "a result that nothing takes up": (["<<1+2=3>>", "<<4*5=20>>"], "20", 1 / 2, 1 / 2),
    "taken up two steps later": (["<<1+2=3>>", "<<4+4=8>>", "<<8*3=24>>"], "24", 1, 1),
    "4 occurs in 14": (["<<1+3=4>>", "<<14*2=28>>"], "28", 1, 1 / 2),
    "8 occurs in the answer 18": (["<<4+4=8>>"], "18", 1, 0),
    "a result that is only a later result": (["<<1+3=4>>", "<<2*2=4>>"], "4", 1, 1),
    "the same, but no answer": (["<<1+3=4>>", "<<2*2=4>>", "<<4+1=5>>"], "5", 1, 1),
    "only a later result": (["<<1+6=7>>", "<<5+2=7>>", "<<2*2=4>>"], "4", 2 / 3, 1 / 3),
    "an early step that is the answer": (["<<1+2=3>>", "<<4+1=5>>"], "3", 0, 1 / 2),
    "gibberish has the empty result": (["no equation", "nor this one"], "28", 1, 0),
    "gibberish between": (["<<1+2=3>>", "no", "<<3*2=6>>"], "6", 1, 2 / 3),
    "numbers written in another way": (["<<1/2=0.5>>", "<<.50*4=2.0>>"], "2", 0, 1),
    "a negative result": (["<<3-5=-2>>", "<<-2+6=4>>"], "4", 1, 1),
    "subtracted is not negative": (["<<3-5=-2>>", "<<6-2=4>>"], "4", 1, 1 / 2),
    "a readable result of an unreadable expression": (["<<x+y=9>>"], "9", 1, 0),
    "no steps": ([], "28", 1, 0),
    "no answer": (["<<1+2=3>>"], None, 0, 0),
    "gibberish and no answer": (["no equation"], None, 1, 0),
    "an answer in words": (["<<1+2=3>>"], "three", 0, 0),
    "an answer with its unit": (["<<1+2=3>>"], "$3.00", 1, 1),
    "the whole chain in one step": (["<<3+4=7>><<7*2=14>>"], "14", 0, 1),
    "its rest in the last step": (["<<16-3-4=9>>", "<<9*2=18>>\n<<18+2=20>>"], "20", 1 / 2, 1),
    "the rest, and another answer": (["<<16-3-4=9>>", "<<9*2=18>>\n<<18+2=20>>"], "18", 1, 2 / 3),
    "an inner result that nothing takes up": (["<<1+2=3>>", "<<3+4=7>> <<5*2=10>>"], "10", 1 / 2, 2 / 3),
    "one taken up by a later step": (["<<3+4=7>><<3*2=6>>", "<<7+6=13>>"], "13", 1, 1),
    "the result of a step is its first": (["<<3+4=7>><<7*2=14>>", "<<7+1=8>>"], "8", 1, 2 / 3),
    "the rest in the wrong order": (["<<7*2=14>><<3+4=7>>"], "14", 1, 1 / 2),
    "gibberish before a rest": (["no", "<<3+4=7>><<7*2=14>>"], "14", 1 / 2, 2 / 3),
    "equations in sentences": (["Ann has <<3+4=7>>7 boxes.", "So <<7*2=14>>14 eggs."], "14", 1, 1),
    "two equals signs": (["<<7+3=5+5=10>>"], "10", 0, 0),
    "two equals signs, taken up as written": (["<<1+1=2=2>>", "<<2=2>>"], "2", 1, 1 / 2),
    "two equals signs in the middle": (["<<1+2=3>>", "<<3*2=4+2=6>>", "<<6+1=7>>"], "7", 2 / 3, 1 / 3),
    "no brackets": (["3+4=7", "7*2=14"], "99", 1, 1 / 2),
    "no opening brackets": (["3+4=7>>", "8*2=16>>"], "16", 1 / 2, 0),
    "no closing brackets": (["<<3+4=7", "<<8*2=16"], "99", 1, 0),
    "closed in the next line": (["<<3+4=7\n>>", "<<8*2=16>>"], "16", 1, 1 / 2),
    "an equals sign before the equation": (["so x = <<3+4=7>>", "<<7*2=14>>"], "14", 1 / 2, 1),
    "blanks around a result": (["<<3 + 4 = 7 >>", "<<7*2= 14>>"], "14", 1, 1),
    "no result": (["<<3+4=>>", "<<8*2=16>>"], "16", 1, 1 / 2),
}


@pytest.mark.parametrize(("steps", "answer", "paper", "strict"), CASES.values(), ids=CASES.keys())
def test_both_coherences(steps, answer, paper, strict):
    assert paper_coherence(steps, answer) == pytest.approx(paper)
    assert strict_coherence(steps, answer) == pytest.approx(strict)


def test_as_rewards_strict_reads_the_answer_behind_the_marker_and_paper_the_whole_text():
    completions = ["### 3", "3", "3 ### 4", "### 3", "### 3"]
    decoded_steps = [["<<1+2=3>>"], ["<<1+2=3>>"], ["<<1+2=3>>"], [], None]
    prompts = [""] * 5
    assert coherence_paper(prompts, completions, decoded_steps=decoded_steps) == [1.0, 1.0, 1.0, 1.0, None]
    assert coherence_strict(prompts, completions, decoded_steps=decoded_steps) == [1.0, 0.0, 0.0, 0.0, None]


def test_the_prediction_of_a_written_chain_is_what_follows_its_steps():
    """Else the last result would always be found in the step that says it."""
    steps = ["<<1+2=3>>", "<<3*5=15>>"]
    completions = ["\n".join([*steps, "### 15"]), "\n".join([*steps, "### 16"]), "<<1+2=3>>\n### 15"]
    assert coherence_paper([""] * 3, completions, decoded_steps=[steps] * 3) == [1.0, 0.5, 1.0]


def test_without_a_step_decoder_they_do_not_apply():
    assert coherence_paper([""], ["### 3"], num_latents=[4]) == [None]
    assert coherence_strict([""], ["### 3"], num_latents=[4]) == [None]


NUMBERS = st.integers(0, 30)
STEPS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda n: f"<<{n[0]}+{n[1]}={n[2]}>>"), max_size=5)
ANY_STEPS = st.lists(st.text(alphabet="0123456789+-*/=<> ", max_size=12), max_size=5)


@settings(deadline=None)
@given(st.one_of(STEPS, ANY_STEPS), st.one_of(NUMBERS.map(str), st.none(), st.text(max_size=5)))
def test_they_are_shares_of_the_steps(steps, answer):
    # Steps too short to hold two equations.
    for coherence in (paper_coherence, strict_coherence):
        score = coherence(steps, answer)
        assert 0 <= score <= 1
        assert score * max(len(steps), 1) == pytest.approx(round(score * max(len(steps), 1)))


def published_result(step):
    """The published rule, character by character: from each `=` on, is there a `>>` before a line ends?"""
    for start in (index for index, character in enumerate(step) if character == "="):
        for end in range(start + 1, len(step)):
            if step.startswith(">>", end):
                return step[start + 1 : end].strip()
            if step[end] == "\n":
                break
    return ""


def published_coherence(steps, predicted):
    """ATP-Latent's coherence, its results first and then the matches, with a step's whole text searched."""
    results = [published_result(step) for step in steps]
    if not results:
        return 1.0
    matched = sum(any(r in other for other in steps[i + 1 :]) for i, r in enumerate(results[:-1]))
    return (matched + (results[-1] in predicted)) / len(results)


SCRIBBLES = st.lists(st.text(alphabet="12+=<> \n", max_size=14), max_size=5)
PIECES = st.sampled_from(["<<", ">>", "=", "1+1", "2", "12", "\n", " ", "so "])
SEVERAL = st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=5)


@settings(deadline=None, max_examples=300)
@given(st.one_of(SCRIBBLES, SEVERAL, STEPS), st.sampled_from(["### 2", "### 12", "", "### =", "2 ### 1"]))
def test_the_paper_s_coherence_is_the_published_rule_in_every_case(steps, predicted):
    assert paper_coherence(steps, predicted) == pytest.approx(published_coherence(steps, predicted))


@settings(deadline=None)
@given(STEPS, NUMBERS.map(str), st.integers(0, 5), st.sampled_from(["", " ", "\n"]))
def test_strict_marks_are_the_same_with_the_rest_of_the_chain_in_one_step(steps, answer, whole, separator):
    rest = [separator.join(steps[whole:])] if steps[whole:] else []
    assert strict_coherence(steps[:whole] + rest, answer) == strict_coherence(steps, answer)


@settings(deadline=None)
@given(STEPS, NUMBERS.map(str))
def test_full_strict_marks_imply_full_marks_of_the_paper(steps, answer):
    # For numbers written in one way only: an operand, or the last result, contains the text that is compared.
    if strict_coherence(steps, answer) == 1:
        assert paper_coherence(steps, answer) == 1


@settings(deadline=None)
@given(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=6))
def test_a_running_sum_is_coherent_and_stays_so_only_with_its_answer(start, addends):
    steps, value = [], start
    for addend in addends:
        steps.append(f"<<{value}+{addend}={value + addend}>>")
        value += addend
    assert strict_coherence(steps, str(value)) == 1
    assert strict_coherence(steps, str(value + 1)) < 1
