"""What the official client gets is what `solve` says, whole or streamed, alone or among 64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from latentplan.modeling.sampling import Sampling
from latentplan.problems.answers import extract_answer
from latentplan.rewards.plan_rewards import strict_coherence
from latentplan.rollout.solve import solve


def chat(server, model, question, **fields):
    """One chat completion; `latentplan` goes into the body beside OpenAI's own fields."""
    extra = {"latentplan": fields.pop("latentplan")} if "latentplan" in fields else None
    return server.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], extra_body=extra, **fields
    )


@pytest.mark.parametrize("model", ["atp", "cot"])
def test_a_greedy_answer_is_that_of_solve(server, tiny_models, questions, model):
    (expected,) = solve(tiny_models[model], questions[:1], Sampling.greedy(12))[0]
    answer = chat(server, model, questions[0], latentplan={"plan": True})
    choice = answer.choices[0]
    assert (answer.object, answer.model, choice.message.role) == ("chat.completion", model, "assistant")
    assert choice.message.content == expected.completion
    assert choice.finish_reason == ("stop" if expected.finished else "length")
    assert answer.usage.completion_tokens == expected.num_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens == expected.num_latents
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + expected.num_tokens
    predicted = extract_answer(expected.completion)
    assert choice.latentplan == {
        "answer": predicted,
        "num_latents": expected.num_latents,
        "plan": expected.plan,
        "coherence": strict_coherence(expected.plan, predicted),
    }


@pytest.mark.parametrize("model", ["atp", "cot"])
def test_samples_of_a_seed_are_those_of_solve(server, tiny_models, questions, model):
    expected = solve(tiny_models[model], questions[:1], Sampling(1.0, 0.5, 6), seed=7, num_generations=5)[0]
    fields = {"n": 5, "seed": 7, "temperature": 1, "max_tokens": 6, "latentplan": {"latent_temperature": 0.5}}
    answer = chat(server, model, questions[0], **fields)
    assert [choice.message.content for choice in answer.choices] == [each.completion for each in expected]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4]
    assert [choice.latentplan["num_latents"] for choice in answer.choices] == [
        each.num_latents for each in expected
    ]
    assert answer.latentplan == {"seed": 7}


def test_the_seed_that_a_server_chooses_repeats_the_answer(server, questions):
    first = chat(server, "atp", questions[0], temperature=1)
    again = chat(server, "atp", questions[0], temperature=1, seed=first.latentplan["seed"])
    assert again.choices[0].message.content == first.choices[0].message.content


def test_completions_of_several_prompts_are_those_of_solve(server, tiny_models, questions):
    expected = solve(tiny_models["cot"], questions[:3], Sampling(1.0, 1.0, 5), seed=3, num_generations=2)
    answer = server.client.completions.create(
        model="cot", prompt=questions[:3], n=2, seed=3, temperature=1, max_tokens=5
    )
    assert [choice.text for choice in answer.choices] == [
        each.completion for group in expected for each in group
    ]
    assert answer.object == "text_completion"


@pytest.mark.parametrize("model", ["atp", "cot"])
def test_a_stream_says_the_same_in_pieces(server, questions, model):
    fields = {"n": 3, "seed": 1, "temperature": 1, "latentplan": {"plan": True}}
    whole = chat(server, model, questions[1], **fields)
    texts, ends, usages, roles = [""] * 3, {}, [], []
    for chunk in chat(
        server, model, questions[1], **fields, stream=True, stream_options={"include_usage": True}
    ):
        if chunk.usage is not None:
            usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.delta.role] if choice.delta.role else []
            if choice.finish_reason:
                ends[choice.index] = (choice.finish_reason, choice.latentplan)
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == {each.index: (each.finish_reason, each.latentplan) for each in whole.choices}
    assert usages == [whole.usage]
    assert roles == ["assistant"] * 3


def test_a_streamed_completion_comes_token_by_token(server, questions):
    chunks = list(server.client.completions.create(model="cot", prompt=questions[0], stream=True))
    (whole,) = server.client.completions.create(model="cot", prompt=questions[0]).choices
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert len(chunks) > 6


def test_an_answer_ends_before_a_stop_sequence(server, questions):
    whole = chat(server, "cot", questions[0]).choices[0].message.content
    words = whole.split()
    cut = chat(server, "cot", questions[0], stop=f" {words[2]}").choices[0]
    assert cut.message.content == whole[: whole.index(f" {words[2]}")].rstrip()
    assert cut.finish_reason == "stop"
    pieces = chat(server, "cot", questions[0], stop=[f" {words[2]}", "never"], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert text == cut.message.content


def test_latents_count_towards_max_completion_tokens(server, questions):
    answer = chat(server, "atp", questions[0], max_completion_tokens=2, seed=0, temperature=1)
    assert answer.usage.completion_tokens <= 2
    assert answer.choices[0].finish_reason == "length"


def test_nothing_is_lost_or_mixed_up_among_64_clients(server, tiny_models, questions):
    asked = questions[:96]
    expected = {
        model: [each.completion for (each,) in solve(loaded, asked, Sampling.greedy(8))]
        for model, loaded in tiny_models.items()
    }

    def ask(number):
        model = ("atp", "cot")[number % 2]
        answer = chat(server, model, asked[number], max_tokens=8, latentplan={"plan": number % 3 == 0})
        return answer.choices[0].message.content == expected[model][number]

    with ThreadPoolExecutor(64) as clients:
        assert all(clients.map(ask, range(len(asked))))


def test_samples_do_not_depend_on_who_asks_at_the_same_time(server, tiny_models, questions):
    settings = [(0.7, 1.0, 4), (1.0, 1.0, 8), (1.3, 0.0, 6), (0.0, 0.5, 8)]

    def ask(number):
        temperature, latent, length = settings[number % 4]
        answer = chat(
            server,
            "atp",
            questions[number],
            n=3,
            seed=number,
            temperature=temperature,
            max_tokens=length,
            latentplan={"latent_temperature": latent},
        )
        return [choice.message.content for choice in answer.choices]

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(ask, range(12)))
    for number, texts in enumerate(answers):
        sampling = Sampling(*settings[number % 4])
        expected = solve(tiny_models["atp"], [questions[number]], sampling, seed=number, num_generations=3)
        assert texts == [each.completion for each in expected[0]]
