"""Evenings, holidays, birthdays and moving house."""

from latentplan.problems.minigsm.number_kinds import (
    below,
    divisor,
    measure,
    money,
    multiple,
    number,
    part_of,
    small,
    times,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part

_EXTRAS = (
    "{A} is {z} years old.",
    "{A} lives at number {z}.",
    "{A} went to bed {z} minutes late yesterday.",
)

FAMILIES = (
    Family(
        "homework",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("{A} has {z} pencils.", "{A}'s desk is {z} years old."),
        parts=(
            Part(
                (
                    "{A} needs {m} minutes for each of {n} maths exercises.",
                    "For homework {A} has {n} maths exercises and needs {m} minutes for each.",
                ),
                numbers={"m": small(3, 12), "n": small(3, 12)},
                total="m * n",
                ask="How many minutes does {A} need for the maths exercises?",
            ),
            Part(
                "Then {A.he} spends {e} minutes on an essay.",
                numbers={"e": small(15, 60)},
                total="total + e",
                ask="How many minutes does {A.he} work?",
            ),
            Part(
                "{A.He} takes {breaks} breaks of {b} minutes.",
                numbers={"breaks": small(2, 4), "b": small(5, 15)},
                total="total + breaks * b",
                ask="How many minutes is that together with the breaks?",
            ),
            Part(
                "{B} starts at the same time and is done {faster} minutes earlier than {A}.",
                numbers={"faster": below("total", 40)},
                total="total - faster",
                ask="How many minutes does {B} need?",
                name="B",
            ),
            Part(
                "After the homework {A} reads for {hours} hours.",
                numbers={"hours": small(2, 3)},
                total="total + hours * 60",
                ask="How many minutes have passed when {A} stops reading?",
                unless="B",
            ),
        ),
    ),
    Family(
        "screen_time",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The television is {z} years old.", "The sofa is {z} steps from the door."),
        parts=(
            Part(
                (
                    "{A} watches {n} episodes of a series, and each lasts {m} minutes.",
                    "Every episode of a series lasts {m} minutes, and {A} watches {n} of them.",
                ),
                numbers={"n": small(2, 9), "m": multiple(5, 4, 11)},
                total="n * m",
                ask="How many minutes does {A} watch?",
            ),
            Part(
                "{A.He} also watches a film that lasts {film} minutes.",
                numbers={"film": number(80, 150)},
                total="total + film",
                ask="How many minutes does {A.he} watch with the film?",
            ),
            Part(
                "{A.He} skips {skip} minutes of advertisements.",
                numbers={"skip": small(4, 20)},
                total="total - skip",
                ask="How many minutes does {A} really watch?",
            ),
            Part(
                "{B} watches {k} as many minutes as {A}.",
                numbers={"k": times(2, 3)},
                total="total * k",
                ask="How many minutes does {B} watch?",
            ),
        ),
    ),
    Family(
        "birthday_money",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The cake has {z} candles.", "{A} gets {z} birthday cards."),
        parts=(
            Part(
                (
                    "On {A.his} birthday {A} gets ${g} from each of {A.his} {n} grandparents.",
                    "{A} has {n} grandparents. Each of them gives {A.him} ${g} for {A.his} birthday.",
                ),
                numbers={"g": multiple(5, 1, 10), "n": small(2, 4)},
                total="g * n",
                ask="How much money does {A} get from {A.his} grandparents?",
            ),
            Part(
                "An uncle gives {A.him} ${u}.",
                numbers={"u": money(5, 40)},
                total="total + u",
                ask="How much money does {A} get in all?",
            ),
            Part(
                "{A.He} spends ${s} on a game.",
                numbers={"s": below("total", 50)},
                total="total - s",
                ask="How much money does {A.he} have left?",
            ),
            Part(
                "{A.He} invites {f} friends to the cinema and pays for {f} tickets at ${t} each.",
                numbers={"f": small(2, 5), "t": small(3, 9)},
                total="total - f * t",
                ask="How much money is left after the cinema?",
            ),
            Part(
                "{B}, who had a birthday too, has {k} as much money as {A} has now.",
                numbers={"k": times(2, 4)},
                let={"mine": "total"},
                total="total * k",
                ask="How much money does {B} have?",
                name="B",
            ),
            Part(
                "The two of them put their money together.",
                total="total + mine",
                ask="How much money is that?",
                needs="B",
                name="joined",
            ),
            Part(
                "They buy a camera for ${c} with it.",
                numbers={"c": below("total", 90)},
                total="total - c",
                ask="How much money is left after they have bought the camera?",
                needs="joined",
            ),
        ),
    ),
    Family(
        "moving_house",
        cast={"A": PEOPLE},
        extras=("The new flat is on floor {z}.", "The old flat was built {z} years ago."),
        parts=(
            Part(
                (
                    "{A} is moving house and packs {rooms} rooms into {boxes} boxes each.",
                    "Before moving house {A} fills {boxes} boxes in each of {rooms} rooms.",
                ),
                numbers={"rooms": small(2, 6), "boxes": number(5, 20)},
                total="rooms * boxes",
                ask="How many boxes does {A} fill?",
            ),
            Part(
                "Another {cellar} boxes come from the cellar.",
                numbers={"cellar": number(4, 30)},
                total="total + cellar",
                ask="How many boxes are there?",
            ),
            Part(
                "{A.He} gives {away} of the boxes to a charity shop.",
                numbers={"away": below("total", 40)},
                total="total - away",
                ask="How many boxes have to be moved?",
            ),
            Part(
                "A box weighs {kg} kg on average.",
                numbers={"kg": measure(5, 12)},
                total="total * kg",
                ask="How many kilograms do the boxes to be moved weigh together?",
                name="kg",
            ),
            Part(
                "The furniture weighs another {f} kg.",
                numbers={"f": multiple(10, 5, 40)},
                total="total + f",
                ask="How many kilograms have to be moved in all?",
                needs="kg",
            ),
            Part(
                "The van makes {trips} trips with the same load each time.",
                numbers={"trips": divisor("total", 2, 6)},
                total="total / trips",
                ask="How many kilograms are in the van on each trip?",
                needs="kg",
            ),
        ),
    ),
    Family(
        "photos",
        cast={"A": PEOPLE},
        extras=("{A}'s phone has a screen of {z} cm.", "{A} has owned this phone for {z} months."),
        parts=(
            Part(
                (
                    "{A} takes {n} photos a day on a holiday of {d} days.",
                    "On each of the {d} days of a holiday {A} takes {n} photos.",
                ),
                numbers={"n": number(5, 30), "d": small(3, 14)},
                total="n * d",
                ask="How many photos does {A} take?",
            ),
            Part(
                "{A.He} deletes {x} photos because they are blurred.",
                numbers={"x": below("total", 40)},
                total="total - x",
                ask="How many photos are left?",
            ),
            Part(
                "A friend sends {A.him} another {s} photos.",
                numbers={"s": number(5, 40)},
                total="total + s",
                ask="How many photos of the holiday does {A} have?",
            ),
            Part(
                "{A.He} has {k} of {A.his} holiday photos printed.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many photos does {A.he} have printed?",
                name="printed",
            ),
            Part(
                "Each print costs ${p}.",
                numbers={"p": money(2, 4)},
                total="total * p",
                ask="How much do the prints cost?",
                needs="printed",
                name="cost",
            ),
            Part(
                "{A.He} also buys {frames} frames for ${frame} each.",
                numbers={"frame": money(4, 12), "frames": small(2, 5)},
                total="total + frames * frame",
                ask="How much does {A} spend on prints and frames?",
                needs="cost",
            ),
        ),
    ),
)
