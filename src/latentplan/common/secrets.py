"""Which settings hold a secret, and how a secret is kept out of all that is written down or shown.

A run records its command and its settings, shows them in a report and may be published. Values of secret
settings are masked in all of that: files, reports, trackers, messages. A masked value is never taken for a
secret again, so a recorded configuration can be trained from as it is.

A secret may also come from the environment (`LATENTPLAN_HUB_TOKEN` for `hub_token`), which no list of
processes shows; that is also how processes that a command starts get it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MASK = "<masked>"
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ALWAYS = {
    *("secret", "secrets", "password", "passwords", "passwd", "passphrase"),
    *("credential", "credentials", "apikey", "apikeys"),
}
_AT_THE_END = {"token", "key"}
_SPELLED = {
    *("bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "audio", "video"),
    *("start", "end", "stop", "latent", "special", "control"),
}
"""What a token of a tokenizer is called by: `eos_token` is a word of a vocabulary."""
_VALUE = r"""("[^"]*"|'[^']*'|[^\s,;&}\])"']+)"""
# A name is a whole word and nothing is tried again within it: long texts of strangers take linear time.
_NAME = r"(?<![\w-])([\w-]++)"
_ASSIGNED = re.compile(rf"{_NAME}(\s*=\s*){_VALUE}")
_IN_MAPPING = re.compile(rf"{_NAME}([\"']?\s*[:=]\s*){_VALUE}")
_COMPOUND = re.compile(rf"(?<![\w-])([A-Za-z]+[_-][\w-]*+)([\"']?\s*:\s*){_VALUE}")
_LISTED = re.compile(rf"(?<![\w-])(--?[A-Za-z][\w-]*+)([\"'],\s*){_VALUE}")


def is_secret(name: str) -> bool:
    """Whether a setting, flag or environment variable of this name holds a secret.

    Its words decide: *secret*, *password* and *credentials* anywhere, *token* and *key* at the end, unless it
    is a token of a tokenizer: `hub_token`, `--api-key` and `HF_TOKEN`, but not `eos_token`, `max_new_tokens`,
    `pad_token_id`, `num_key_value_heads` or `tokenizer`.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if _ALWAYS & set(words):
        return True
    return bool(words) and words[-1] in _AT_THE_END and not _SPELLED & set(words[-2:-1])


def is_masked(value: object) -> bool:
    """Whether a value stands for a secret that was masked, here or by transformers (`<HUB_TOKEN>`)."""
    return isinstance(value, str) and (value == MASK or re.fullmatch(r"<[A-Z_]+>", value) is not None)


def masked(settings: Any) -> Any:
    """Settings with the values of secret ones masked, also inside of mappings and lists; absent ones stay."""
    if isinstance(settings, Mapping):
        return {
            name: MASK if is_secret(str(name)) and value not in (None, "") else masked(value)
            for name, value in settings.items()
        }
    return [masked(each) for each in settings] if isinstance(settings, list | tuple) else settings


def masked_arguments(arguments: Iterable[str]) -> list[str]:
    """The words of a command with secrets masked: `--flag value`, `--flag=value`, `NAME=value`, mappings."""
    shown: list[str] = []
    value_follows = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if value_follows:
            shown.append(MASK)
            value_follows = False
        elif re.fullmatch(r"--?[A-Za-z][\w-]*", name) and is_secret(name):
            shown.append(f"{name}={MASK}" if equals else argument)
            value_follows = not equals
        else:
            pattern = _IN_MAPPING if argument.lstrip().startswith(("{", "[")) else _ASSIGNED
            shown.append(_masked_matches(pattern, argument))
    return shown


def masked_command(command: str | Sequence[Any]) -> str:
    """A command line, as text or in words, with its secrets masked; unchanged where it has none."""
    if not isinstance(command, str):
        return shlex.join(masked_arguments(map(str, command)))
    try:
        words = shlex.split(command)
    except ValueError:
        return " ".join(masked_arguments(command.split()))
    shown = masked_arguments(words)
    return command if shown == words else shlex.join(shown)


def masked_text(text: str) -> str:
    """A message with secrets masked: `name=value`, `'--flag', 'value'`, and `compound_name: value`."""
    for pattern in (_LISTED, _ASSIGNED, _COMPOUND):
        text = _masked_matches(pattern, text)
    return text


def _masked_matches(pattern: re.Pattern[str], text: str) -> str:
    def hide(match: re.Match[str]) -> str:
        name, separator, value = match.groups()
        quote = value[0] if value[0] in "\"'" else ""
        return f"{name}{separator}{quote}{MASK}{quote}" if is_secret(name) else match[0]

    return pattern.sub(hide, text)


def environment_name(name: str) -> str:
    """The environment variable that a secret setting may come from."""
    return f"LATENTPLAN_{name.upper()}"


def from_environment(names: Iterable[str]) -> dict[str, str]:
    """The secret settings of these that the environment holds."""
    found = {name: os.environ.get(environment_name(name)) for name in names}
    return {name: value for name, value in found.items() if value}


def moved_to_environment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without their secrets, which processes that are started from now on find in their environment.

    Raises:
        ValueError: the environment holds another value already.
    """
    for name, value in settings.items():
        if is_secret(name) and value and not is_masked(value):
            variable = environment_name(name)
            if (os.environ.get(variable) or str(value)) != str(value):
                raise ValueError(f"{name} is set twice, to different values (see {variable}): set it once")
            os.environ[variable] = str(value)
    return {name: value for name, value in settings.items() if not is_secret(name)}


def without_secrets(arguments: Sequence[str], names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The words of a command without the flags of some secret settings, and the values of these by name."""
    flags = {flag: name for name in names for flag in (f"--{name}", f"--{name.replace('_', '-')}")}
    rest: list[str] = []
    found: dict[str, str] = {}
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        flag, equals, value = argument.partition("=")
        if flag not in flags or not (equals or queue):
            rest.append(argument)
        else:
            found[flags[flag]] = value if equals else queue.pop(0)
    return rest, found
