"""Wages, savings, fundraising and factories."""

from latentplan.problems.minigsm.number_kinds import (
    above,
    below,
    divisor,
    money,
    multiple,
    number,
    part_of,
    rate,
    small,
    times,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part, things

_GOODS = things("chair, lamp, bicycle, clock, guitar, kettle, umbrella")
_WISHES = things("camera, bicycle, tent, guitar, skateboard, telescope")

_EXTRAS = (
    "{A} is {z} years old.",
    "The way to work takes {A.him} {z} minutes.",
    "{A} has {z} colleagues.",
)

FAMILIES = (
    Family(
        "wages",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} works {h} hours a day on {d} days a week.",
                    "On {d} days a week {A} works for {h} hours.",
                ),
                numbers={"h": small(3, 9), "d": small(2, 6)},
                total="h * d",
                ask="How many hours does {A} work in a week?",
            ),
            Part(
                "This week {A.he} works {extra} hours of overtime as well, for the same pay.",
                numbers={"extra": small(2, 8)},
                total="total + extra",
                ask="How many hours does {A} work this week?",
            ),
            Part(
                "{A.He} earns ${p} an hour.",
                numbers={"p": money(8, 20)},
                total="total * p",
                ask="How much does {A.he} earn this week?",
                name="pay",
                required=True,
            ),
            Part(
                "{A.He} gets tips of ${tips} on top.",
                numbers={"tips": number(5, 60)},
                total="total + tips",
                ask="How much does {A.he} get this week with the tips?",
            ),
            Part(
                "Of this money {A.he} pays {tax}% in tax.",
                numbers={"tax": rate("total", (5, 10, 20, 25))},
                total=("total - percent(total, tax)", "percent(total, 100 - tax)"),
                ask="How much is left after tax?",
            ),
            Part(
                "{A.He} spends ${rent} on rent and ${food} on food.",
                numbers={"rent": below("total", 50), "food": small(10, 60)},
                total="total - rent - food",
                ask="How much is left of this week's money?",
            ),
            Part(
                "{A.He} saves {k} of the money that {A.he} has then.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How much does {A.he} save?",
            ),
        ),
    ),
    Family(
        "savings",
        cast={"A": PEOPLE, "x": _WISHES},
        extras=("{A} is {z} years old.", "The shop is {z} minutes away."),
        parts=(
            Part(
                (
                    "{A} is saving for a {x} and puts aside ${week} a week for {weeks} weeks.",
                    "To buy a {x}, {A} saves ${week} a week for {weeks} weeks.",
                ),
                numbers={"week": money(3, 15), "weeks": small(4, 15)},
                total="week * weeks",
                ask="How much does {A} save?",
            ),
            Part(
                "{A.He} already had ${had} in {A.his} money box.",
                numbers={"had": money(5, 60)},
                total="total + had",
                ask="How much money does {A} have then?",
            ),
            Part(
                "For {A.his} birthday each of {A.his} {aunts} aunts gives {A.him} ${gift}.",
                numbers={"aunts": small(2, 5), "gift": multiple(5, 1, 6)},
                total="total + aunts * gift",
                ask="How much money does {A} have after {A.his} birthday?",
            ),
            Part(
                "{A.He} spends ${spent} of the money on a book.",
                numbers={"spent": below("total", 30)},
                total="total - spent",
                ask="How much money is left for the {x}?",
            ),
            Part(
                "The {x} costs ${price}.",
                numbers={"price": above("total", 10, 90)},
                total="price - total",
                ask="How much money is {A} still short of?",
                name="short",
            ),
            Part(
                "{A.He} wants to save the rest in {more} weeks, the same amount every week.",
                numbers={"more": divisor("total", 2, 10)},
                total="total / more",
                ask="How much does {A.he} have to save in each of these weeks?",
                needs="short",
            ),
        ),
    ),
    Family(
        "car_wash",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("It is {z} degrees outside.", "The car park has {z} places."),
        parts=(
            Part(
                (
                    "To raise money, {A} and {B} wash cars. {A} washes {a} cars and {B} washes {b}.",
                    "{A} and {B} wash cars for a good cause. {A} manages {a} cars and {B} manages {b}.",
                ),
                numbers={"a": number(5, 25), "b": number(5, 25)},
                total="a + b",
                ask="How many cars do they wash together?",
            ),
            Part(
                "They take ${p} for a car.",
                numbers={"p": money(4, 12)},
                total=("(a + b) * p", "a * p + b * p"),
                ask="How much money do they take?",
                name="money",
                required=True,
            ),
            Part(
                "A tip of ${t} is given by {n} of the drivers.",
                numbers={"n": small(3, 9), "t": small(2, 5)},
                total="total + n * t",
                ask="How much money is that with the tips?",
            ),
            Part(
                "They pay ${soap} for soap and sponges.",
                numbers={"soap": below("total", 25)},
                total="total - soap",
                ask="How much money is left after paying for the soap and the sponges?",
            ),
            Part(
                "A firm doubles the money that they have.",
                total="total * 2",
                ask="How much money do they have after that?",
            ),
            Part(
                "They give {k} of their money to an animal shelter.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How much does the shelter get?",
            ),
        ),
    ),
    Family(
        "factory",
        cast={"A": PEOPLE, "x": _GOODS},
        extras=("The factory is {z} years old.", "The factory has {z} windows."),
        parts=(
            Part(
                (
                    "In {A}'s factory {m} machines make {each} {x.s} an hour each.",
                    "{A} runs a factory with {m} machines. Each of them makes {each} {x.s} an hour.",
                ),
                numbers={"m": small(2, 9), "each": small(3, 12)},
                total="m * each",
                ask="How many {x.s} do the machines make in an hour?",
            ),
            Part(
                "They run for {h} hours a day.",
                numbers={"h": small(4, 12)},
                total="total * h",
                ask="How many {x.s} are made in a day?",
                name="day",
                required=True,
            ),
            Part(
                "On average {bad} of the {x.s} made in a day are faulty.",
                numbers={"bad": below("total", 15)},
                total="total - bad",
                ask="How many good {x.s} are made in a day?",
            ),
            Part(
                "The factory works on {days} days a week.",
                numbers={"days": small(5, 6)},
                total="total * days",
                ask="How many {x.s}, without the faulty ones if there are any, are made in a week?",
                name="week",
            ),
            Part(
                "Of the {x.s} that can be sold, {own} go to the factory's own shop.",
                numbers={"own": below("total", 40)},
                total="total - own",
                ask="How many {x.s} are sent elsewhere?",
            ),
            Part(
                "The ones that are sent elsewhere are loaded evenly onto {vans} vans.",
                numbers={"vans": divisor("total", 2, 9)},
                total="total / vans",
                ask="How many {x.s} are there on each van?",
            ),
        ),
    ),
    Family(
        "newspaper_round",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("{A} gets up {z} minutes after six.", "{A}'s bicycle has {z} gears."),
        parts=(
            Part(
                (
                    "{A} delivers newspapers to {streets} streets with {houses} houses each.",
                    "On {A}'s newspaper round there are {streets} streets of {houses} houses.",
                ),
                numbers={"streets": small(3, 9), "houses": number(8, 30)},
                total="streets * houses",
                ask="How many houses is that?",
            ),
            Part(
                "In {none} of the houses nobody wants a newspaper.",
                numbers={"none": below("total", 30)},
                total="total - none",
                ask="How many newspapers does {A} deliver?",
            ),
            Part(
                "{A} also takes a newspaper to each of {shops} shops.",
                numbers={"shops": small(3, 15)},
                total="total + shops",
                ask="How many newspapers does {A} deliver?",
            ),
            Part(
                "{B} takes over {k} of {A}'s newspapers.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many newspapers are left for {A}?",
            ),
            Part(
                "For every {n} newspapers {A} delivers, {A.he} earns a dollar.",
                numbers={"n": divisor("total", 2, 12)},
                total="total / n",
                ask="How many dollars does {A} earn a day?",
                name="pay",
            ),
            Part(
                "{A} does this on {days} days.",
                numbers={"days": small(3, 20)},
                total="total * days",
                ask="How many dollars does {A} earn on these days?",
                needs="pay",
            ),
        ),
    ),
    Family(
        "bakery_business",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A}'s bakery sells {dozen} dozen rolls on an ordinary morning.",
                    "On an ordinary morning {A} sells {dozen} dozen rolls in {A.his} bakery.",
                ),
                numbers={"dozen": number(3, 20)},
                total="dozen * 12",
                ask="How many rolls is that?",
            ),
            Part(
                "On Saturday the bakery sells {k} as many.",
                numbers={"k": times(2, 3)},
                total="total * k",
                ask="How many rolls does the bakery sell on Saturday morning?",
            ),
            Part(
                "A hotel orders another {hotel} rolls on that day.",
                numbers={"hotel": number(20, 90)},
                total="total + hotel",
                ask="How many rolls does the bakery sell on that day, with the hotel?",
            ),
            Part(
                "Every roll costs ${p}.",
                numbers={"p": money(2, 3)},
                total="total * p",
                ask="How much money does the bakery take for the rolls?",
                name="money",
                required=True,
            ),
            Part(
                "Cakes bring in ${cakes} more.",
                numbers={"cakes": number(20, 99)},
                total="total + cakes",
                ask="How much money does the bakery take for rolls and cakes?",
            ),
            Part(
                "Flour, butter and wages cost {A.him} ${costs} on that day.",
                numbers={"costs": below("total", 70)},
                total="total - costs",
                ask="How much profit does {A} make on that day?",
            ),
        ),
    ),
    Family(
        "bricklayers",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The wall is {z} metres long.", "{A} has done this work for {z} years."),
        parts=(
            Part(
                (
                    "{A} lays {a} bricks an hour and {B} lays {b}.",
                    "{A} and {B} are building a wall. In an hour {A} lays {a} bricks and {B} lays {b}.",
                ),
                numbers={"a": number(20, 60), "b": number(20, 60)},
                total="a + b",
                ask="How many bricks do they lay in an hour together?",
            ),
            Part(
                "They work together for {h} hours.",
                numbers={"h": small(2, 8)},
                total=("(a + b) * h", "a * h + b * h"),
                ask="How many bricks do they lay in this time?",
                name="hours",
                required=True,
            ),
            Part(
                "Then {A} goes on alone for {alone} hours.",
                numbers={"alone": small(2, 5)},
                total="total + a * alone",
                ask="How many bricks are laid in all?",
            ),
            Part(
                "In the evening {fallen} of the bricks fall down.",
                numbers={"fallen": below("total", 20)},
                total="total - fallen",
                ask="How many bricks are in place after that?",
            ),
            Part(
                "The wall is going to have {wall} bricks.",
                numbers={"wall": above("total", 40, 300)},
                total="wall - total",
                ask="How many bricks are still missing?",
                name="missing",
            ),
            Part(
                "The next day {B} lays the missing bricks in {hours} hours, the same number in each.",
                numbers={"hours": divisor("total", 2, 8)},
                total="total / hours",
                ask="How many bricks does {B} lay in each of these hours?",
                needs="missing",
            ),
        ),
    ),
)
