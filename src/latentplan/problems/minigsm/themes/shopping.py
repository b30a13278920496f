"""Shops, prices, change and discounts."""

from latentplan.problems.minigsm.number_kinds import (
    below,
    divisor,
    money,
    multiple,
    note,
    number,
    rate,
    small,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part, things

_FRUIT = things("apple, pear, peach, melon, mango/mangoes, lemon, orange, pineapple")
_VEGETABLES = things("cabbage, cucumber, leek, pumpkin, pepper, lettuce, cauliflower")
_CLOTHES = things("shirt, jumper, skirt, jacket, dress, scarf/scarves, hat, belt")
_TOYS = things("puzzle, board game, kite, doll, toy car, ball, teddy bear")
_OFFICE = things("notebook, folder, marker, glue stick, stapler, calendar")

_EXTRAS = (
    "The shop is {z} minutes from {A.his} home.",
    "{A} is {z} years old.",
    "There are {z} people in the shop.",
)

FAMILIES = (
    Family(
        "groceries",
        cast={"A": PEOPLE, "x": _FRUIT, "y": _VEGETABLES},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} buys {n} {x.s} at ${p} each.",
                    "{A} goes to the market and buys {n} {x.s}, which cost ${p} each.",
                    "At the market {A} picks out {n} {x.s} for ${p} apiece.",
                ),
                numbers={"n": number(2, 12), "p": money(2, 6)},
                total="n * p",
                ask=("How much do the {x.s} cost?", "How much does {A} pay?"),
            ),
            Part(
                ("{A.He} also takes {m} {y.s} at ${q} each.", "{A.He} adds {m} {y.s} for ${q} each."),
                numbers={"m": number(2, 9), "q": money(2, 6)},
                total="total + m * q",
                ask=("How much does all this cost?", "How many dollars does {A.he} spend in total?"),
            ),
            Part(
                (
                    "A bag of potatoes costs {A.him} another ${bag}.",
                    "{A.He} pays ${bag} for a bag of rice as well.",
                ),
                numbers={"bag": money(3, 9)},
                total="total + bag",
                ask=("How much does {A.he} spend altogether?", "What does {A.he} spend in total?"),
            ),
            Part(
                "{A.He} has a voucher that takes ${off} off the bill.",
                numbers={"off": below("total", 40)},
                total="total - off",
                ask="How much is left to pay?",
            ),
            Part(
                ("{A.He} pays with ${paid}.", "At the till {A.he} hands over ${paid}."),
                numbers={"paid": note("total")},
                total="paid - total",
                ask=("How much change does {A.he} get?", "How many dollars does {A.he} get back?"),
                name="change",
            ),
            Part(
                "{A.He} gives ${gift} of the change to {A.his} little sister.",
                numbers={"gift": below("total")},
                total="total - gift",
                ask="How much of the change does {A.he} keep?",
                needs="change",
            ),
        ),
    ),
    Family(
        "clothes_sale",
        cast={"A": PEOPLE, "x": _CLOTHES, "y": _CLOTHES},
        extras=_EXTRAS,
        parts=(
            Part(
                ("{A} sees a {x} in a shop for ${price}.", "{A} wants to buy a {x} that costs ${price}."),
                numbers={"price": multiple(10, 2, 12)},
                total="price",
            ),
            Part(
                (
                    "In the sale the price of the {x} goes down by {off}%.",
                    "Today there is a discount of {off}% on the {x}.",
                ),
                numbers={"off": rate("total", (10, 20, 25, 30, 40, 50, 60))},
                total=("total - percent(total, off)", "percent(total, 100 - off)"),
                ask=("What does the {x} cost now?", "How much does one {x} cost today?"),
            ),
            Part(
                "{A} decides to buy {n} {x.s} at this price.",
                numbers={"n": small(2, 4)},
                total="total * n",
                ask="How much does {A} have to pay for the {x.s}?",
            ),
            Part(
                "{A} also picks {m} {y.s} for ${q} each.",
                numbers={"m": small(2, 5), "q": money(5, 30)},
                total="total + m * q",
                ask="How much does everything cost?",
            ),
            Part(
                "Because of a loose button the shop takes ${less} off the bill.",
                numbers={"less": below("total", 20)},
                total="total - less",
                ask="How much does {A} pay in the end?",
            ),
            Part(
                "{A} had ${purse} in {A.his} purse before paying the bill.",
                numbers={"purse": note("total")},
                total="purse - total",
                ask=("How much money is left in the purse?", "How much does {A} have after paying?"),
            ),
        ),
    ),
    Family(
        "toy_shop",
        cast={"A": PEOPLE, "x": _TOYS, "y": _TOYS, "z1": _TOYS},
        extras=_EXTRAS,
        parts=(
            Part(
                ("In a toy shop a {x} costs ${p}.", "The price of a {x} is ${p}."),
                numbers={"p": money(5, 20)},
                let={"x": "p"},
                total="p",
            ),
            Part(
                "A {y} costs ${more} more than a {x}.",
                numbers={"more": money(2, 12)},
                let={"y": "p + more"},
                total="p + more",
                ask="How much does a {y} cost?",
                name="y",
            ),
            Part(
                "{A} buys one {x} and one {y}.",
                total="p + y",
                ask="How much does {A} pay?",
                needs="y",
                unless="many",
                name="bought",
            ),
            Part(
                "{A} buys {n} {x.s} and one {y}.",
                numbers={"n": small(2, 6)},
                total="n * p + y",
                ask="How much does {A} pay?",
                needs="y",
                unless="bought",
                name="bought",
            ),
            Part(
                "{A} buys {n} {x.s} and {m} {y.s}.",
                numbers={"n": small(2, 6), "m": small(2, 5)},
                total="n * p + m * y",
                ask="What is the total price?",
                needs="y",
                unless="bought",
                name="bought",
            ),
            Part(
                "{A.He} has the toys wrapped for ${wrap}.",
                numbers={"wrap": money(2, 6)},
                total="total + wrap",
                ask="How much does {A.he} spend with the wrapping?",
                needs="bought",
            ),
            Part(
                "{A.His} two aunts each give {A.him} ${aunt} towards the bill, and {A.he} pays the rest.",
                numbers={"aunt": below("total", 40)},
                total="total - aunt * 2",
                ask="How much does {A} pay {A.himself}?",
                needs="bought",
            ),
        ),
    ),
    Family(
        "office_order",
        cast={"A": PEOPLE, "x": _OFFICE, "y": _OFFICE},
        extras=("{A} has worked in the office for {z} years.", "The office is on floor {z}."),
        parts=(
            Part(
                (
                    "{A} orders {boxes} boxes of {x.s} for the office. There are {each} {x.s} in a box.",
                    "An office orders {boxes} boxes with {each} {x.s} in each of them.",
                ),
                numbers={"boxes": number(2, 12), "each": number(4, 20)},
                total="boxes * each",
                ask="How many {x.s} is that?",
            ),
            Part(
                "In the cupboard there are another {old} {x.s}.",
                numbers={"old": number(5, 40)},
                total="total + old",
                ask="How many {x.s} does the office have then?",
            ),
            Part(
                "The office sends back {bad} {x.s} that are damaged.",
                numbers={"bad": below("total", 30)},
                total="total - bad",
                ask="How many good {x.s} are left?",
            ),
            Part(
                "The {x.s} are shared out evenly among {teams} teams.",
                numbers={"teams": divisor("total", 2, 10)},
                total="total / teams",
                ask="How many {x.s} does every team get?",
                name="teams",
            ),
            Part(
                "Each team already has {own} of them.",
                numbers={"own": small(2, 15)},
                total="total + own",
                ask="How many {x.s} does every team have now?",
                needs="teams",
            ),
            Part(
                "In a month one team uses up {used} {x.s}.",
                numbers={"used": below("total")},
                total="total - used",
                ask="How many {x.s} does this team still have at the end of the month?",
                needs="teams",
            ),
        ),
    ),
    Family(
        "book_shop",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The book shop has {z} shelves.", "{A} reads {z} books a year."),
        parts=(
            Part(
                (
                    "{A} buys {n} novels and {m} comics. Every novel costs ${p} and every comic ${q}.",
                    "A novel costs ${p} and a comic ${q}. {A} chooses {n} novels and {m} comics.",
                ),
                numbers={"n": small(2, 8), "m": small(2, 8), "p": money(6, 20), "q": money(2, 8)},
                total="n * p + m * q",
                ask=("How much do the books cost altogether?", "How much is that in total?"),
            ),
            Part(
                "With {A.his} club card {A.he} gets {off}% off the total.",
                numbers={"off": rate("total", (5, 10, 20, 25, 50))},
                total=("total - percent(total, off)", "percent(total, 100 - off)"),
                ask="How much does {A} pay with the card?",
            ),
            Part(
                "A dictionary for ${d}, which is never reduced, comes on top.",
                numbers={"d": money(8, 30)},
                total="total + d",
                ask="How much does {A} have to pay in all?",
            ),
            Part(
                "{B} pays ${share} of the bill.",
                numbers={"share": below("total", 60)},
                total="total - share",
                ask="How much is left for {A} to pay?",
            ),
            Part(
                "{A} pays the amount due in {months} equal parts, one every month.",
                numbers={"months": divisor("total", 2, 6)},
                total="total / months",
                ask="How much does {A} pay every month?",
            ),
        ),
    ),
    Family(
        "phone_plan",
        cast={"A": PEOPLE},
        extras=("{A} lives on floor {z}.", "{A} makes about {z} calls a month."),
        parts=(
            Part(
                (
                    "{A} buys a phone for ${down} at once and ${rate} a month for {months} months.",
                    "For a new phone {A} pays ${down} first, and then ${rate} a month for {months} months.",
                ),
                numbers={"down": money(20, 90), "rate": money(5, 25), "months": small(6, 20)},
                total="down + rate * months",
                ask=("How much does the phone cost altogether?", "How much does {A} pay in all?"),
            ),
            Part(
                "A case for ${case} comes on top.",
                numbers={"case": money(5, 20)},
                total="total + case",
                ask="How much is that together with the case?",
            ),
            Part(
                "{A.He} sells {A.his} old phone for ${old} to pay for a part of this.",
                numbers={"old": below("total", 40)},
                total="total - old",
                ask="How much does {A.he} have to pay beyond that money?",
            ),
            Part(
                "Insurance costs ${ins} a month for {years} years, that is 12 months a year.",
                numbers={"ins": money(2, 6), "years": small(2, 3)},
                total=("total + ins * (years * 12)",),
                ask="How much does {A.he} spend in the end?",
            ),
        ),
    ),
)
