"""docs/backbones.md says what is tested, no more and no less."""

import re
from pathlib import Path

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.modeling.backbones import UnsupportedBackboneError, check_config

TEXT = (Path(__file__).parents[2] / "docs/backbones.md").read_text()


def rows_below(heading: str) -> list[list[str]]:
    table = TEXT.split(heading, 1)[1].split("| --- |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_the_table_of_families_is_what_the_tests_run(tested_families):
    families, windowed = tested_families
    found = {re.findall(r"`(.*)`", row[1])[0]: row[2:9] for row in rows_below("## Tested families")}
    assert found == {name: [*"✓✓✓✓✓✓", "✓" if name in windowed else "–"] for name in families}


@pytest.mark.parametrize(
    "model_type", re.findall(r"`([\w-]+)`", "".join(row[1] for row in rows_below("and when")))
)
def test_what_the_table_says_is_refused_is_refused(model_type):
    if model_type == "model_type":
        return
    with pytest.raises(UnsupportedBackboneError):
        check_config(CONFIG_MAPPING[model_type]())
