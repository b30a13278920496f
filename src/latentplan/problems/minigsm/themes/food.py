"""Kitchens, recipes and parties."""

from latentplan.problems.minigsm.number_kinds import (
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

_CAKES = things("biscuit, muffin, cupcake, pancake, scone, waffle, brownie")
_FRUIT = things("strawberry, cherry, plum, apricot, fig, apple")

_EXTRAS = (
    "The oven takes {z} minutes to get hot.",
    "The recipe book has {z} pages.",
    "{A.He} has lived in this street for {z} years.",
)

FAMILIES = (
    Family(
        "baking",
        cast={"A": PEOPLE, "x": _CAKES},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} bakes {trays} trays of {x.s} with {each} {x.s} on each tray.",
                    "In {A}'s kitchen {trays} trays with {each} {x.s} each come out of the oven.",
                ),
                numbers={"trays": number(2, 9), "each": number(6, 20)},
                total="trays * each",
                ask=("How many {x.s} does {A} bake?", "How many {x.s} is that?"),
            ),
            Part(
                (
                    "Sadly, {burnt} {x.s} are burnt and have to be thrown away.",
                    "The dog eats {burnt} of the {x.s}.",
                ),
                numbers={"burnt": below("total", 30)},
                total="total - burnt",
                ask="How many {x.s} are left?",
            ),
            Part(
                "{A.His} grandmother brings {plates} plates with {more} {x.s} each.",
                numbers={"plates": small(2, 5), "more": number(3, 12)},
                total="total + plates * more",
                ask="How many {x.s} do they have now?",
            ),
            Part(
                "The children in the house eat {eaten} {x.s}.",
                numbers={"eaten": below("total", 50)},
                total="total - eaten",
                ask="How many {x.s} have not been eaten?",
            ),
            Part(
                "{A.He} packs the {x.s} that are left into bags of {bag}.",
                numbers={"bag": divisor("total", 3, 12)},
                total="total / bag",
                ask="How many bags does {A.he} fill?",
                name="bags",
            ),
            Part(
                "{A.He} sells the bags for ${price} each.",
                numbers={"price": money(2, 8)},
                total="total * price",
                ask="How much money does {A.he} take?",
                needs="bags",
                name="sold",
            ),
            Part(
                "The ingredients cost {A.him} ${cost}.",
                numbers={"cost": below("total", 60)},
                total="total - cost",
                ask="How much profit does {A.he} make?",
                needs="sold",
            ),
        ),
    ),
    Family(
        "pizza_party",
        cast={"A": PEOPLE},
        extras=("The party starts {z} minutes after five.", "{A} turns {z} this week."),
        parts=(
            Part(
                (
                    "For {A}'s party {n} pizzas are ordered, and each is cut into {cut} slices.",
                    "{A} orders {n} pizzas for a party. Every pizza is cut into {cut} slices.",
                ),
                numbers={"n": number(2, 12), "cut": small(6, 12)},
                total="n * cut",
                ask="How many slices are there?",
            ),
            Part(
                "The {girls} girls eat {g} slices each.",
                numbers={"girls": small(2, 6), "g": small(2, 3)},
                total="total - girls * g",
                ask="How many slices are left after that?",
            ),
            Part(
                "The {boys} boys eat {b} slices each.",
                numbers={"boys": small(2, 6), "b": small(2, 4)},
                total="total - boys * b",
                ask="How many slices remain when the boys have eaten?",
            ),
            Part(
                "Somebody drops {dropped} slices on the floor.",
                numbers={"dropped": small(2, 5)},
                total="total - dropped",
                ask="How many slices can still be eaten?",
            ),
            Part(
                "The parents eat {k} of the slices that are still there.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many slices are left for the neighbours?",
            ),
        ),
    ),
    Family(
        "lemonade_stand",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("It is {z} degrees outside.", "The stand is {z} steps from the park."),
        parts=(
            Part(
                (
                    "{A} and {B} run a lemonade stand. On Saturday they sell {sat} cups.",
                    "On Saturday {A} and {B} sell {sat} cups of lemonade at their stand.",
                ),
                numbers={"sat": number(10, 50)},
                let={"cups": "sat"},
                total="sat",
            ),
            Part(
                "On Sunday they sell {more} cups more than on Saturday.",
                numbers={"more": number(3, 25)},
                let={"cups": "sat + (sat + more)"},
                total="sat + (sat + more)",
                ask="How many cups do they sell on the two days together?",
                name="sunday",
            ),
            Part(
                "On Sunday they sell {k} as many cups as on Saturday.",
                numbers={"k": times(2, 3)},
                let={"cups": "sat + sat * k"},
                total=("sat + sat * k",),
                ask="How many cups do they sell on the two days together?",
                unless="sunday",
                name="sunday",
            ),
            Part(
                "Every cup costs ${p}.",
                numbers={"p": money(2, 4)},
                total="total * p",
                ask="How much money do they take?",
                name="money",
                required=True,
            ),
            Part(
                "They spend ${lemons} on lemons and ${sugar} on sugar.",
                numbers={"lemons": below("total", 40), "sugar": small(2, 9)},
                total="total - lemons - sugar",
                ask="How much of the money is left?",
            ),
            Part(
                "People also put ${tips} into their tip jar.",
                numbers={"tips": number(3, 20)},
                total="total + tips",
                ask="How much money do they have in the end?",
            ),
            Part(
                "The two of them share the money evenly.",
                total="total / 2",
                ask="How much money does each of them get?",
                name="shared",
            ),
            Part(
                "{A} spends ${spent} of {A.his} share on a present for {A.his} mother.",
                numbers={"spent": below("total", 60)},
                total="total - spent",
                ask="How much does {A} have left?",
                needs="shared",
            ),
        ),
    ),
    Family(
        "recipe",
        cast={"A": PEOPLE, "x": _CAKES},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "A recipe for {base} {x.s} needs {g} grams of flour for each {x}.",
                    "To make {base} {x.s}, {A} uses {g} grams of flour for each of them.",
                ),
                numbers={"base": number(4, 20), "g": multiple(5, 2, 8)},
                total="base * g",
                ask="How many grams of flour does {A} need?",
            ),
            Part(
                "{A} is expecting guests and makes {k} as many {x.s}.",
                numbers={"k": times(2, 4)},
                total="total * k",
                ask="How many grams of flour does {A} need for the guests?",
            ),
            Part(
                "{A} adds {extra} grams of flour so that the dough is not too wet.",
                numbers={"extra": multiple(5, 2, 20)},
                total="total + extra",
                ask="How many grams of flour does {A.he} use in all?",
            ),
            Part(
                "There are {have} grams of flour in the cupboard already.",
                numbers={"have": below("total", 60)},
                total="total - have",
                ask="How many more grams of flour does {A.he} need?",
                name="more",
            ),
            Part(
                "The missing flour is sold in small bags of {bag} grams.",
                numbers={"bag": divisor("total", 5, 100)},
                total="total / bag",
                ask="How many bags does {A} have to buy?",
                needs="more",
                name="bags",
            ),
            Part(
                "Each bag costs ${p}.",
                numbers={"p": money(2, 5)},
                total="total * p",
                ask="How much does {A} pay for the missing flour?",
                needs="bags",
            ),
        ),
    ),
    Family(
        "jam",
        cast={"A": PEOPLE, "B": PEOPLE, "x": _FRUIT},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} picks {a} kg of {x.s} and {B} picks {b} kg.",
                    "In the garden {A} picks {a} kg of {x.s}, and {B} picks {b} kg of them.",
                ),
                numbers={"a": number(3, 20), "b": number(3, 20)},
                total="a + b",
                ask="How many kilograms of {x.s} do they pick together?",
            ),
            Part(
                "They give {given} kg of the {x.s} to a friend.",
                numbers={"given": below("total", 50)},
                total="total - given",
                ask="How many kilograms of {x.s} are left for jam?",
            ),
            Part(
                "Each kilogram makes {jars} jars of jam.",
                numbers={"jars": small(2, 5)},
                total="total * jars",
                ask="How many jars of jam can they make?",
                name="jars",
                required=True,
            ),
            Part(
                "On the shelf there are already {old} jars from last year.",
                numbers={"old": number(3, 20)},
                total="total + old",
                ask="How many jars do they have in all?",
            ),
            Part(
                "The family will open {weekly} jars a week for {weeks} weeks.",
                numbers={"weekly": small(2, 3), "weeks": small(2, 6)},
                total="total - weekly * weeks",
                ask="How many jars will be left after that?",
            ),
            Part(
                "{A} sells {k} of the jars that are left at the fair.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many jars does {A} sell?",
                name="fair",
            ),
            Part(
                "At the fair a jar costs ${p}.",
                numbers={"p": money(3, 8)},
                total="total * p",
                ask="How much money does {A} take at the fair?",
                needs="fair",
            ),
        ),
    ),
    Family(
        "restaurant_bill",
        cast={"A": PEOPLE},
        extras=("They wait {z} minutes for their food.", "The restaurant has {z} tables."),
        parts=(
            Part(
                (
                    "{A} and some friends eat out. They order {n} main dishes at ${p} each.",
                    "In a restaurant {A} and some friends order {n} main dishes for ${p} each.",
                ),
                numbers={"n": small(3, 8), "p": money(8, 20)},
                total="n * p",
                ask="How much do the main dishes cost?",
            ),
            Part(
                "They have {m} drinks at ${q} each.",
                numbers={"m": small(3, 9), "q": money(2, 6)},
                total="total + m * q",
                ask="How much is that with the drinks?",
            ),
            Part(
                "Then they order {d} desserts for ${s} each.",
                numbers={"d": small(2, 5), "s": money(3, 9)},
                total="total + d * s",
                ask="How much is the bill with the desserts?",
            ),
            Part(
                "They add a tip of {tip}%.",
                numbers={"tip": rate("total", (5, 10, 15, 20, 25))},
                total=("total + percent(total, tip)", "percent(total, 100 + tip)"),
                ask="How much do they pay with the tip?",
            ),
            Part(
                "{A} has a coupon for ${c}, which is taken off what they pay.",
                numbers={"c": below("total", 30)},
                total="total - c",
                ask="How much do they pay with the coupon?",
            ),
            Part(
                "They split the bill evenly between the {f} people at the table.",
                numbers={"f": divisor("total", 2, 9)},
                total="total / f",
                ask="How much does each of them pay?",
            ),
        ),
    ),
)
