"""The stories themselves, one file for each theme."""

from latentplan.problems.minigsm.story_template import Family
from latentplan.problems.minigsm.themes import (
    animals,
    food,
    home,
    leisure,
    people,
    school,
    shopping,
    sport,
    travel,
    work,
)

_THEMES = (animals, food, home, leisure, people, school, shopping, sport, travel, work)

FAMILIES: dict[str, Family] = {family.name: family for theme in _THEMES for family in theme.FAMILIES}
"""Every family by its name."""
