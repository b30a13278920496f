"""Which settings are secret, over all that exist; and masks in every form in which a command has a value."""

from __future__ import annotations

import os
import shlex
from dataclasses import fields

import pytest
import typer.main
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.cli.app import DeferredCommand, app
from latentplan.common.secrets import (
    MASK,
    is_masked,
    is_secret,
    masked,
    masked_arguments,
    masked_command,
    masked_text,
    moved_to_environment,
    without_secrets,
)
from latentplan.problems.training_set import DataArguments
from latentplan.serving.settings import ServeSettings
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig

VALUE = "hf_NOTASECRET"
SECRET = [
    *("hub_token", "--hub_token", "--hub-token", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "token", "hubToken"),
    *("api_key", "WANDB_API_KEY", "LATENTPLAN_API_KEY", "key", "apikey", "AWS_SECRET_ACCESS_KEY", "ssh-key"),
    *("password", "db_password", "passwd", "client_secret", "secret_name", "credentials"),
]
NOT_SECRET = [
    *("tokenizer", "max_new_tokens", "num_tokens", "max_question_tokens", "pad_token_id", "tokens_trained"),
    *("eos_token", "bos_token", "pad_token", "unk_token", "image_token", "start_latent_token_id", "monkey"),
    *(
        "average_tokens_across_devices",
        "num_key_value_heads",
        "keys",
        "latents",
        "",
        "learning_rate",
        "keyed",
    ),
]


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", NOT_SECRET)
def test_names_that_only_sound_like_it(name):
    assert not is_secret(name)


def options(command):
    """The names of all options below a command, with their environment variables."""
    if isinstance(command, DeferredCommand):
        command = command._real()
    if hasattr(command, "commands"):
        return {name for each in command.commands.values() for name in options(each)}
    return {name for each in command.params for name in (each.name, *_variables(each.envvar))}


def _variables(named):
    return [named] if isinstance(named, str) else named or []


def test_of_all_settings_and_options_that_exist_these_are_secret():
    """A new one that sounds like a secret has to be looked at: is it kept out of the Trainer's settings?"""
    classes = (ModelArguments, DataArguments, SFTConfig, GRPOConfig, ServeSettings)
    names = {item.name for each in classes for item in fields(each)}
    assert len(names) > 190
    assert {name for name in names if is_secret(name)} == {"hub_token", "api_key"}
    found = options(typer.main.get_command(app))
    assert len(found) > 40
    assert {name for name in found if is_secret(name)} == {"api_key", "LATENTPLAN_API_KEY"}


def test_nothing_in_a_backbones_configuration_is_masked():
    for family in (
        "llama",
        "qwen3",
        "gemma3_text",
        "gpt2",
        "mixtral",
        "deepseek_v3",
        "llama4_text",
        "gpt_oss",
    ):
        values = CONFIG_MAPPING[family]().to_dict()
        assert masked(values).keys() == values.keys()
        assert MASK not in str(masked(values))


def test_settings_keep_their_shape():
    settings = {"hub_token": VALUE, "seed": 1, "a": [{"api_key": VALUE, "b": 2}], "token": None, "key": ""}
    shown = {"hub_token": MASK, "seed": 1, "a": [{"api_key": MASK, "b": 2}], "token": None, "key": ""}
    assert masked(settings) == shown
    assert masked(shown) == shown
    assert masked({"password": {"a": VALUE}, "secret": 7}) == {"password": MASK, "secret": MASK}


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--hub_token", VALUE, "--seed", "1"], ["--hub_token", MASK, "--seed", "1"]),
        ([f"--hub_token={VALUE}", "--seed=1"], [f"--hub_token={MASK}", "--seed=1"]),
        (["--hub-token", VALUE], ["--hub-token", MASK]),
        ([f"HF_TOKEN={VALUE}", "latentplan", "sft"], [f"HF_TOKEN={MASK}", "latentplan", "sft"]),
        (["--set", f"hub_token={VALUE}"], ["--set", f"hub_token={MASK}"]),
        (["--args", f"pretrained=a,token={VALUE},x=1"], ["--args", f"pretrained=a,token={MASK},x=1"]),
        (["--s", f"{{a: 1, api_key: {VALUE}, b: 2}}"], ["--s", f"{{a: 1, api_key: {MASK}, b: 2}}"]),
        (["--s", f'{{"api_key": "{VALUE}"}}'], ["--s", f'{{"api_key": "{MASK}"}}']),
        (["--hub_token", "--starts-with-dashes"], ["--hub_token", MASK]),
        (["--seed", "1", "--hub_token"], ["--seed", "1", "--hub_token"]),
        (["ask", "runs/a", "what is the key?"], ["ask", "runs/a", "what is the key?"]),
        (["--max_new_tokens", "5", "--tokenizer", "word_level"],) * 2,
        (["--dataset_columns", "{answer: answer_key, question: token}"],) * 2,
    ],
)
def test_words_of_a_command(words, shown):
    assert masked_arguments(words) == shown
    assert masked_arguments(shown) == shown
    assert shlex.split(masked_command(shlex.join(words))) == shown
    assert shlex.split(masked_command(words)) == shown


def test_a_command_without_secrets_stays_as_it_was_written():
    command = "latentplan sft   --config 'a b' --seed=1"
    assert masked_command(command) == command
    assert (
        masked_command("latentplan 'not closed --hub_token hf_x")
        == f"latentplan 'not closed --hub_token {MASK}"
    )
    assert masked_command("") == ""


def test_messages():
    assert VALUE not in masked_text(f"not used: ['--api_key', '{VALUE}']")
    assert VALUE not in masked_text(f"hub_token: '{VALUE}' there, 'hf_b' now; got '{{api_key: {VALUE}}}'")
    for prose in (
        "argument --hub_token/--hub-token: expected one argument; --api_key changes that",
        "the token is wrong: 'eos' there, 'bos' now; choose --max_new_tokens 5 (the key to it)",
        "eos_token: '</s>' there; the question holds '<|eot_id|>', a control token of the model",
    ):
        assert masked_text(prose) == prose


def test_what_stands_for_a_secret_is_known_again():
    assert is_masked(MASK)
    assert is_masked("<HUB_TOKEN>")
    assert not any(map(is_masked, (VALUE, None, "", "<b>", 1)))


def test_secrets_of_settings_move_to_the_environment(monkeypatch):
    monkeypatch.setenv("LATENTPLAN_HUB_TOKEN", VALUE)  # so that it is put back
    del os.environ["LATENTPLAN_HUB_TOKEN"]
    assert moved_to_environment({"seed": 1, "hub_token": VALUE}) == {"seed": 1}
    assert os.environ["LATENTPLAN_HUB_TOKEN"] == VALUE
    assert moved_to_environment({"hub_token": MASK}) == moved_to_environment({"hub_token": VALUE}) == {}
    with pytest.raises(ValueError, match="hub_token is set twice") as error:
        moved_to_environment({"hub_token": "hf_other"})
    assert VALUE not in str(error.value)
    assert "hf_other" not in str(error.value)
    monkeypatch.delenv("LATENTPLAN_HUB_TOKEN")


def test_secret_flags_of_a_command_are_taken_out():
    words = [
        "--seed",
        "1",
        "--hub_token",
        VALUE,
        f"--hub-token={VALUE}2",
        "--api_key",
        "stays",
        "--hub_token",
    ]
    rest, found = without_secrets(words, ["hub_token"])
    assert rest == ["--seed", "1", "--api_key", "stays", "--hub_token"]
    assert found == {"hub_token": f"{VALUE}2"}


@pytest.mark.parametrize(
    "unit",
    ["a", "a-", "a_", " ", "=", "a=", "--a", "'", '"', "a='", "--a', ", "a b", "a_b: ", "a\n", "1", "token="],
)
def test_a_long_text_of_a_stranger_takes_no_longer_than_its_length(unit):
    text = "api_key" + unit * (400_000 // len(unit))
    masked_text(text)  # with a quadratic pattern: hours
    masked_arguments([text, "{" + text])


@pytest.mark.parametrize("text", [f"1hub_token={VALUE}", f"x_1token={VALUE}", f"('--api_key', '{VALUE}')"])
def test_names_that_begin_with_something_else_are_masked_too(text):
    assert VALUE not in masked_text(text)
