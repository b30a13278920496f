"""Ages, collections and sharing: comparing what people have."""

from latentplan.problems.minigsm.number_kinds import (
    below,
    divisor,
    number,
    part_of,
    small,
    times,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part, things

_COLLECTED = things("stamp, coin, shell, postcard, marble, badge, model car")
_SWEETS = things("sweet, toffee, jelly bean, chocolate, mint")

_EXTRAS = (
    "{A} is {z} years old.",
    "{A} lives at number {z}.",
    "{A} went to bed {z} minutes late yesterday.",
)

FAMILIES = (
    Family(
        "collections",
        cast={"A": PEOPLE, "B": PEOPLE, "C": PEOPLE, "x": _COLLECTED},
        extras=_EXTRAS,
        parts=(
            Part(
                ("{A} has {a} {x.s}.", "{A} collects {x.s} and has {a} of them."),
                numbers={"a": number(6, 60)},
                total="a",
            ),
            Part(
                "{B} has {k} as many {x.s} as {A}.",
                numbers={"k": times(2, 5)},
                let={"b": "a * k"},
                total="a + a * k",
                ask=("How many {x.s} do they have together?", "How many {x.s} do {A} and {B} have in all?"),
                name="B",
            ),
            Part(
                "{B} has {more} {x.s} more than {A}.",
                numbers={"more": number(4, 40)},
                let={"b": "a + more"},
                total="a + (a + more)",
                ask=("How many {x.s} do they have together?", "How many {x.s} do {A} and {B} have in all?"),
                unless="B",
                name="B",
            ),
            Part(
                "{B} has {less} {x.s} fewer than {A}.",
                numbers={"less": below("a")},
                let={"b": "a - less"},
                total="a + (a - less)",
                ask=("How many {x.s} do they have together?", "How many {x.s} do {A} and {B} have in all?"),
                unless="B",
                name="B",
            ),
            Part(
                "{C} has {c} {x.s} more than {B}.",
                numbers={"c": number(3, 30)},
                total="total + (b + c)",
                ask="How many {x.s} do the three of them have?",
                needs="B",
                name="C",
            ),
            Part(
                "{C} has {k2} as many {x.s} as {B}.",
                numbers={"k2": times(2, 3)},
                total="total + b * k2",
                ask="How many {x.s} do the three of them have?",
                needs="B",
                unless="C",
                name="C",
            ),
            Part(
                "They put all of their {x.s} on a table, and {lost} fall off and get lost.",
                numbers={"lost": below("total", 30)},
                total="total - lost",
                ask="How many {x.s} are left on the table?",
                needs="B",
                name="table",
            ),
            Part(
                "They pack the {x.s} from the table into boxes of {box}.",
                numbers={"box": divisor("total", 3, 15)},
                total="total / box",
                ask="How many boxes do they fill?",
                needs="table",
            ),
        ),
    ),
    Family(
        "ages",
        cast={"A": PEOPLE, "B": PEOPLE, "C": PEOPLE},
        extras=("{A} lives at number {z}.", "{B} has {z} books.", "{A}'s birthday is in {z} days."),
        parts=(
            Part(
                ("{A} is {a} years old.", "Today {A} turns {a}."),
                numbers={"a": small(5, 14)},
                total="a",
            ),
            Part(
                "{B} is {k} as old as {A}.",
                numbers={"k": times(2, 4)},
                let={"b": "a * k", "sum": "a + a * k"},
                total="a * k",
                ask="How old is {B}?",
                name="B",
            ),
            Part(
                "{B} is {more} years older than {A}.",
                numbers={"more": small(3, 30)},
                let={"b": "a + more", "sum": "a + (a + more)"},
                total="a + more",
                ask="How old is {B}?",
                unless="B",
                name="B",
            ),
            Part(
                "{C} is {less} years younger than {B}.",
                numbers={"less": below("b", 60)},
                let={"c": "b - less"},
                total="b - less",
                ask="How old is {C}?",
                needs="B",
                name="C",
            ),
            Part(
                "{C} is {k2} as old as {B}.",
                numbers={"k2": times(2, 2)},
                let={"c": "b * k2"},
                total="b * k2",
                ask="How old is {C}?",
                needs="B",
                unless="C",
                name="C",
            ),
            Part(
                "They add up the ages of all three of them.",
                total="sum + c",
                ask="What is the sum of their ages?",
                needs="C",
                name="sum",
            ),
            Part(
                "In {years} years they will add up the ages of the three of them.",
                numbers={"years": small(2, 9)},
                total=("(sum + c) + years * 3", "(a + years) + (b + years) + (c + years)"),
                ask="What will the sum of the three ages be?",
                needs="C",
                unless="sum",
                name="sum",
            ),
        ),
    ),
    Family(
        "sweets",
        cast={"A": PEOPLE, "B": PEOPLE, "x": _SWEETS},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} has {bags} bags of {x.s} with {each} {x.s} in each bag.",
                    "{A} is given {bags} bags with {each} {x.s} each.",
                ),
                numbers={"bags": small(2, 9), "each": number(6, 25)},
                total="bags * each",
                ask="How many {x.s} does {A} have?",
            ),
            Part(
                "{A.He} finds another {found} {x.s} in a drawer.",
                numbers={"found": number(3, 20)},
                total="total + found",
                ask="How many {x.s} does {A} have now?",
            ),
            Part(
                "{A.He} eats {eaten} of the {x.s}.",
                numbers={"eaten": below("total", 30)},
                total="total - eaten",
                ask="How many {x.s} has {A} left?",
            ),
            Part(
                "{A.He} gives {k} of the remaining {x.s} to {A.his} brother.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many {x.s} does {A} keep?",
            ),
            Part(
                "{A.He} shares out all that {A.he} has evenly among {friends} friends.",
                numbers={"friends": divisor("total", 2, 12)},
                total="total / friends",
                ask="How many {x.s} does each friend get?",
                name="shared",
            ),
            Part(
                "One of these friends, {B}, already had {own} {x.s}.",
                numbers={"own": small(2, 15)},
                total="total + own",
                ask="How many {x.s} does {B} have now?",
                needs="shared",
            ),
        ),
    ),
)
