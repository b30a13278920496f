"""Settings of plug-ins, read from a mapping."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from latentplan.common.plugins import setting, settings_from


@dataclass
class Settings:
    share: float = setting(0.5, "of something")
    count: int | None = setting(None, "how many")
    names: list[str] = setting([], "whose")
    strict: bool = setting(False, "whether")


def read(**values):
    return settings_from(Settings, values, "reward mine")


def test_values_are_read_and_the_others_keep_their_defaults():
    assert read() == settings_from(Settings, None, "reward mine") == Settings(0.5, None, [], False)
    assert read(share=1, count=3, names=["a"], strict=True) == Settings(1.0, 3, ["a"], True)
    assert isinstance(read(share=1).share, float)
    assert read(count=None).count is None
    assert Settings().names is not Settings().names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"shares": 1.0},
            "reward mine has no setting 'shares': its settings are share, count, names, strict",
        ),
        ({"share": "1"}, "share of reward mine must be float, got '1'"),
        ({"share": True}, "share of reward mine must be float, got True"),
        ({"count": 1.5}, "count of reward mine must be int or null, got 1.5"),
        ({"names": "a"}, "names of reward mine must be list, got 'a'"),
        ({"strict": 1}, "strict of reward mine must be bool, got 1"),
    ],
)
def test_what_is_no_setting_or_of_another_type_is_refused(values, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read(**values)
