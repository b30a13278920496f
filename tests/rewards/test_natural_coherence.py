from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.rewards.reward_set import get_reward
from latentplan.rewards.sentence_coherence import (
    Link,
    coherence_natural,
    natural_coherence,
    read_natural,
)

CLIPS = "Nat sold clips to 48 friends in April and half as many in May. How many altogether?"
HALF, SUM = "In May she sold 48/2 = 24 clips.", "That is 48+24 = $72 in all."

TERPS = (
    "Every terp is a brim. Tom is a terp. Every brim is a lem. Every terp is a gor. Bob is a brim. "
    "Every gor is a dax. Every fim is a gra. Is Tom a lem or gra?"
)
A, B, C = "Tom is a terp.", "Every terp is a brim.", "Every brim is a lem."

ELVIS = "Did the King of Rock eat plants with bananas?"

CASES = {
    # Numbers: support, taken up, reaches the answer (else a half).
    "a chain of calculations": (CLIPS, [HALF, SUM], "72", 1),
    "the wrong order": (CLIPS, [SUM, HALF], "72", 1 / 4),  # 24 is unknown (1/2), and then given to nobody
    "equations alone": (CLIPS, ["<<48/2=24>>", "<<48+24=72>>"], "72", 1),
    "several in one step": (CLIPS, ["<<48/2=24>><<48+24=72>>"], "72", 1),
    "annotated sentences": (CLIPS, ["She sold 48/2 = <<48/2=24>>24.", "So <<48+24=72>>72."], "72", 1),
    "another answer": (CLIPS, [HALF, SUM], "71", 1 / 4),  # the first is taken up, but leads nowhere
    "an answer with its unit": (CLIPS, [HALF, SUM], "$72.00", 1),
    "no answer": (CLIPS, [HALF, SUM], None, 1 / 4),
    "a false result": (CLIPS, ["48/2 = 25", "48+25 = 73"], "73", 1 / 4),  # 25 is not known: half of 1/2
    "numbers from nowhere": (CLIPS, ["47+8 = 55"], "55", 0),
    "half of the numbers": (CLIPS, ["48+8 = 56"], "56", 1 / 2),
    "percentages": ("A coat of $40 is 25% off. Price?", ["40*25% = 10", "40 - 10 = 30"], "30", 1),
    "a share of": ("A coat of $40 is 25% off. Price?", ["25% of 40 = 10", "100% - 25% = 75%"], "10", 1 / 2),
    "units between": (CLIPS, ["48 clips / 2 months = 24 clips a month", SUM], "72", 1),
    "because": (CLIPS, ["She sold 24 because 48 x 2 / 4 = 24", SUM], "72", (2 / 3 + (1 + 2 / 3) / 2) / 2),
    "equal to an expression": (CLIPS, ["48/2 = 48 - 24 = 24", SUM], "72", 1),
    "numbers that are only stated": (CLIPS, ["Nat sold 24 clips in May.", SUM], "72", 3 / 4),
    "the answer only stated": (CLIPS, ["Nat sold 72 clips."], "72", 1 / 2),
    "the answer beside a constant": (CLIPS, ["1 and 100 make 72."], "72", 0),
    "arithmetic that cannot be read": (CLIPS, ["48 and 48 and 24 = 72"], "72", (2 / 3) / 2),
    "units, dashes and full stops": (
        CLIPS,
        ["48 clips/month – 24 clips/month = 24.", SUM],
        "72",
        (1 / 2 + 3 / 4) / 2,
    ),
    "a step without arithmetic": (CLIPS, ["First find May.", HALF, SUM], "72", 2 / 3),
    # Repetitions, and steps that say nothing.
    "no steps": (CLIPS, [], "72", 0),
    "empty steps": (CLIPS, ["", " \n "], "72", 0),
    "signs alone": (CLIPS, ["= = =", "...", "# #"], "72", 0),
    "a step repeated": (CLIPS, [HALF, HALF, HALF, SUM], "72", 1 / 2),
    "repeated in another order": (CLIPS, [HALF, SUM, "24+48=72"], "72", 2 / 3),
    "the answer alone": (CLIPS, ["72", "72", "72"], "72", 0),
    "the answer in every step": (CLIPS, ["The answer is 72."] * 3, "72", 0),
    "the question in every step": (CLIPS, [CLIPS, CLIPS], "72", 0),
    # Every X is a Y.
    "a path": (TERPS, [A, B, C], "Tom is a lem.", 1),
    "a path, one step for all": (TERPS, [f"{A} {B} {C}"], "Tom is a lem.", 1),
    "a path, without blanks": (TERPS, [A + B + C], "Tom is a lem.", 1),
    "the answer in a word": (TERPS, [A, B, C], "lem", 1),
    "a path in the wrong order": (TERPS, [B, A, C], "Tom is a lem.", 1 / 3),
    "a path backwards": (TERPS, [C, B, A], "Tom is a lem.", 1 / 6),
    "a path that starts late": (TERPS, [B, C], "Tom is a lem.", 1 / 2),
    "a path to another answer": (TERPS, [A, B, C], "Tom is a gra.", 1 / 3),
    "what the question does not say": (
        TERPS,
        ["Tom is a fim.", "Every fim is a gra."],
        "Tom is a gra.",
        1 / 4,
    ),
    "a conclusion on the way": (TERPS, [A, B, "Tom is a brim.", C, "Tom is a lem."], "Tom is a lem.", 1),
    "a conclusion without a premise": (TERPS, [A, "Tom is a brim.", C], "Tom is a lem.", 1 / 6),
    "a detour": (TERPS, [A, "Every terp is a gor.", B, C], "Tom is a lem.", 3 / 4),
    # Other sentences: words that the question does not have, half a link each.
    "facts that join": (
        ELVIS,
        ["Elvis Presley is known as the King of Rock.", "Elvis Presley loved bananas and peanuts."],
        "no",
        1,
    ),
    "facts about something else": (ELVIS, ["Paris is in France.", "France won in 1998."], "no", 0),
    "references": (ELVIS, ["Who is the King of Rock?", "What did #1 eat?", "Are #2 plants?"], "yes", 1),
    "references to later steps": (ELVIS, ["Are #2 plants?", "What did #3 eat?", "Who is King?"], "yes", 0),
}


@pytest.mark.parametrize(("question", "steps", "answer", "score"), CASES.values(), ids=CASES.keys())
def test_natural_coherence(question, steps, answer, score):
    assert natural_coherence(steps, answer, question) == pytest.approx(score)


def test_as_rewards_they_read_the_answer_behind_the_marker_and_the_question():
    columns = {"decoded_steps": [[HALF, SUM], [HALF, SUM], [], None], "question": [CLIPS] * 4}
    completions = ["### 72", "72", "### 72", "### 72"]
    assert coherence_natural([""] * 4, completions, **columns) == [1.0, 0.25, 0.0, None]
    if_correct = get_reward("coherence_natural_if_correct")
    answers = ["72", "72", "72", "72"]
    assert if_correct([""] * 4, completions, answer=answers, **columns) == [1.0, 0.0, 0.0, None]
    wrong = if_correct([""] * 4, completions, answer=["71"] * 4, **columns)
    assert wrong == [0.0, 0.0, 0.0, None]


def test_without_a_step_decoder_or_a_question_column():
    assert coherence_natural([CLIPS], ["### 72"], num_latents=[2]) == [None]
    assert coherence_natural([CLIPS], ["### 72"], decoded_steps=[[HALF, SUM]]) == [1.0]


def test_arithmetic_under_a_modulus():
    steps = ["<<8+5=2>>", "<<2*6=1>>"]
    question = "start at 8 , add 5 , times 6 ?"
    columns = {"decoded_steps": [steps, steps], "modulus": [11, None]}
    assert coherence_natural([question] * 2, ["### 1"] * 2, **columns) == [1.0, 0.0]


def test_a_reading_names_links_and_what_is_wrong():
    reading = read_natural([HALF, HALF, SUM, "48*2 = 97"], "72", CLIPS)
    assert reading.steps == (1.0, 0.0, 1.0, 0.0)
    assert reading.score == 0.5
    assert reading.remarks == ("", "repeats an earlier step", "", "does not come out")
    assert reading.links == (Link(0, 2, ("24",), 1.0), Link(2, None, ("72",), 1.0))


def test_a_reading_of_a_path_and_of_facts():
    reading = read_natural([A, f"{B} {C}", "Tom is a dax."], "Tom is a lem.", TERPS)
    assert reading.steps == (1.0, 1.0, 0.0)
    assert reading.remarks[2] == "follows from nothing before it"
    assert reading.links == (Link(0, 1, ("terp",), 1.0), Link(1, None, ("lem",), 1.0))
    facts = read_natural(["Elvis is a King of old.", "Once Elvis had bananas at home."], "no", ELVIS)
    assert next((link.source, link.target, link.strength) for link in facts.links) == (0, 1, 0.5)


def test_things_taken_up_once_are_paid_once():
    # Two steps give 20, and the sum takes it twice: both count. Taken once, the other is left over.
    question = "He has 10 bags of 2 and 5 bags of 4. How many?"
    twice, once = ["10*2 = 20", "5*4 = 20", "20+20 = 40"], ["10*2 = 20", "5*4 = 20", "20*2 = 40"]
    assert natural_coherence(twice, "40", question) == 1
    assert natural_coherence(once, "40", question) == pytest.approx(2 / 3)


def test_numbers_are_compared_as_numbers():
    assert natural_coherence(["3/2 = 1.50", "1.5*4 = 6.0"], "6", "3 for 2. Price of 4?") == 1
    reading = read_natural(["14/2 = 7", "7*70 = 490"], "490", "14 of 70, half of it?")
    assert reading.links[0].things == (str(Fraction(7)),)


VOCABULARY = "the clip may 24 48 = + 2 72 is a terp every brim # #1 . ? tom ### 5% 1/0 <<3+4=7>> x"
WORDS = st.sampled_from([*VOCABULARY.split(), "\n"])
ANY_STEPS = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=5)
QUESTIONS = st.sampled_from([CLIPS, TERPS, ELVIS, "", "?"])
ANSWERS = st.sampled_from(["72", "Tom is a lem.", "yes", "brim", "", None, "1/0", "#"])


@settings(deadline=None)
@given(ANY_STEPS, ANSWERS, QUESTIONS)
def test_it_is_a_share_and_agrees_with_its_reading(steps, answer, question):
    reading = read_natural(steps, answer, question)
    assert 0 <= reading.score <= 1
    assert all(0 <= score <= 1 for score in reading.steps)
    assert len(reading.steps) == len(reading.remarks) == len(steps)
    assert reading.score == pytest.approx(natural_coherence(steps, answer, question))
    assert all(0 < link.strength <= 1 and link.source != link.target for link in reading.links)
    assert all(link.target is None or link.source < link.target for link in reading.links)


@settings(deadline=None)
@given(ANY_STEPS, ANSWERS, QUESTIONS)
def test_case_and_blanks_change_nothing(steps, answer, question):
    shouted = [step.upper().replace(" ", "  \t").replace("X", "x") for step in steps]
    plain = [step.replace("X", "x") for step in steps]
    assert natural_coherence(shouted, answer, question.upper()) == pytest.approx(
        natural_coherence(plain, answer, question)
    )


@settings(deadline=None)
@given(st.lists(st.integers(2, 99), min_size=4, max_size=8, unique=True), st.randoms())
def test_the_order_of_independent_steps_changes_nothing(numbers, random):
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    products = [f"{left} bags of {right} hold {left}*{right} = {left * right} nuts." for left, right in pairs]
    results = [left * right for left, right in pairs]
    total = f"In all {' + '.join(map(str, results))} = {sum(results)} nuts."
    question = " and ".join(f"{left} bags of {right}" for left, right in pairs) + ": how many nuts?"
    shuffled = random.sample(products, len(products))
    assert natural_coherence([*shuffled, total], str(sum(results)), question) == pytest.approx(1)


@settings(deadline=None)
@given(st.sampled_from([(CLIPS, [HALF, SUM], "72"), (TERPS, [A, B, C], "Tom is a lem.")]), st.data())
def test_padding_never_pays(case, data):
    question, steps, answer = case
    padding = st.sampled_from(
        [*steps, question, f"The answer is {answer}", answer, "", "so", f"{answer} = {answer}"]
    )
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(steps)))
        steps = [*steps[:place], data.draw(padding), *steps[place:]]
    assert natural_coherence(steps, answer, question) < 1


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize(
    ("question", "answer"), [(CLIPS, "72"), (TERPS, "Tom is a lem."), (TERPS, "lem"), (ELVIS, "yes")]
)
def test_hacks_earn_at_most_a_half(question, answer, count):
    chunks = question.split()
    pieces = [" ".join(chunks[place::count]) for place in range(count)]
    sentences = [f"{sentence}." for sentence in question.split(".")]
    hacks = [[question] * count, [answer] * count, [f"The answer is {answer}"] * count, pieces, sentences]
    assert max(natural_coherence(steps, answer, question) for steps in hacks) <= 0.5
