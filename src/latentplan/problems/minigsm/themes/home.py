"""Gardens, flats and repairs."""

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

_FLOWERS = things("tulip, rose, daisy, lily, violet, sunflower, poppy")
_TREES = things("apple tree, pear tree, plum tree, cherry tree")

_EXTRAS = (
    "The garden is {z} metres from the river.",
    "{A} has lived in this house for {z} years.",
    "The house has {z} windows.",
)

FAMILIES = (
    Family(
        "flower_beds",
        cast={"A": PEOPLE, "x": _FLOWERS, "y": _FLOWERS},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} plants {rows} rows of {x.s} with {each} {x.s} in each row.",
                    "In {A}'s garden there are {rows} rows of {each} {x.s}.",
                ),
                numbers={"rows": number(3, 12), "each": number(5, 15)},
                total="rows * each",
                ask="How many {x.s} are there?",
            ),
            Part(
                "Next to them {A.he} plants {beds} beds with {more} {y.s} each.",
                numbers={"beds": small(2, 6), "more": number(4, 15)},
                total="total + beds * more",
                ask="How many flowers are there in all?",
            ),
            Part(
                "Rabbits eat {eaten} of the flowers.",
                numbers={"eaten": below("total", 40)},
                total="total - eaten",
                ask="How many flowers are left?",
            ),
            Part(
                "{A.He} cuts {k} of the flowers that are growing there to sell them.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many flowers does {A.he} cut?",
                name="cut",
            ),
            Part(
                "{A.He} ties the cut flowers into bunches of {bunch}.",
                numbers={"bunch": divisor("total", 3, 10)},
                total="total / bunch",
                ask="How many bunches does {A.he} get?",
                needs="cut",
                name="bunches",
            ),
            Part(
                "A bunch is sold for ${p}.",
                numbers={"p": money(3, 9)},
                total="total * p",
                ask="How much money does {A} make?",
                needs="bunches",
            ),
        ),
    ),
    Family(
        "orchard",
        cast={"A": PEOPLE, "x": _TREES},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} picks {kg} kg of fruit from each of {A.his} {trees} {x.s}.",
                    "There are {trees} {x.s} in {A}'s orchard, and {A.he} picks {kg} kg of fruit from each.",
                ),
                numbers={"trees": number(3, 15), "kg": number(8, 40)},
                total="trees * kg",
                ask="How many kilograms of fruit does {A} pick?",
            ),
            Part(
                "It turns out that {p}% of the fruit is bad.",
                numbers={"p": rate("total", (5, 10, 20, 25))},
                total=("total - percent(total, p)", "percent(total, 100 - p)"),
                ask="How many kilograms of the fruit are good?",
            ),
            Part(
                "{A} keeps {own} kg of the good fruit for {A.his} family.",
                numbers={"own": below("total", 40)},
                total="total - own",
                ask="How many kilograms are left to be sold?",
            ),
            Part(
                "The fruit that is left goes into crates of {crate} kg.",
                numbers={"crate": divisor("total", 4, 20)},
                total="total / crate",
                ask="How many crates are filled?",
                name="crates",
            ),
            Part(
                "A trader buys the crates for ${price} each.",
                numbers={"price": money(5, 20)},
                total="total * price",
                ask="How much does the trader pay?",
                needs="crates",
                name="paid",
            ),
            Part(
                "From this money {A} pays ${help} to each of {helpers} helpers.",
                numbers={"helpers": small(2, 3), "help": small(5, 20)},
                total="total - help * helpers",
                ask="How much of the money does {A} keep?",
                needs="paid",
            ),
        ),
    ),
    Family(
        "fence",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A}'s garden is a rectangle {long} metres long and {wide} metres wide. "
                    "{A.He} wants to put a fence around it.",
                    "{A} wants to put a fence around a rectangle, {long} metres long and {wide} metres wide.",
                ),
                numbers={"long": number(10, 50), "wide": number(5, 40)},
                total=("(long + wide) * 2", "long * 2 + wide * 2"),
                ask="How many metres of fence does {A.he} need?",
            ),
            Part(
                "A gate takes up {gate} metres of the way round, where no fence is needed.",
                numbers={"gate": small(2, 6)},
                total="total - gate",
                ask="How many metres of fence does {A} need?",
            ),
            Part(
                "There are {have} metres of fence in the shed.",
                numbers={"have": below("total", 60)},
                total="total - have",
                ask="How many metres of fence does {A} have to buy?",
            ),
            Part(
                "A metre of fence costs ${p}.",
                numbers={"p": money(3, 12)},
                total="total * p",
                ask="How much does the fence cost {A.him}?",
                name="cost",
            ),
            Part(
                "The shop takes ${fee} for bringing it.",
                numbers={"fee": money(5, 30)},
                total="total + fee",
                ask="How much does {A} pay in all?",
                needs="cost",
            ),
        ),
    ),
    Family(
        "water_tank",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "A tank in {A}'s garden holds {full} litres of water.",
                    "There are {full} litres of water in {A}'s rain tank.",
                ),
                numbers={"full": multiple(10, 10, 60)},
                total="full",
            ),
            Part(
                "Every morning for {days} days {A} takes {cans} cans of {can} litres from the tank.",
                numbers={"days": small(2, 6), "cans": small(2, 3), "can": small(4, 10)},
                total="total - days * cans * can",
                ask="How many litres are left?",
            ),
            Part(
                "Rain brings {rain} litres of new water.",
                numbers={"rain": number(20, 90)},
                total="total + rain",
                ask="How many litres are in the tank after the rain?",
            ),
            Part(
                "A leak loses {drop} litres an hour for {hours} hours.",
                numbers={"drop": small(2, 6), "hours": small(3, 12)},
                total="total - drop * hours",
                ask="How many litres are in the tank after that?",
            ),
            Part(
                "A neighbour takes {k} of the water that is still there.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many litres does the neighbour leave in the tank?",
            ),
            Part(
                "{A} shares out the remaining water evenly among {beds} flower beds.",
                numbers={"beds": divisor("total", 3, 12)},
                total="total / beds",
                ask="How many litres does each bed get?",
            ),
        ),
    ),
    Family(
        "tiles",
        cast={"A": PEOPLE},
        extras=("The bathroom window is {z} cm wide.", "{A} is helped by {z} friends."),
        parts=(
            Part(
                (
                    "{A} tiles a wall with {rows} rows of {cols} tiles.",
                    "For a wall in the bathroom {A} needs {rows} rows of {cols} tiles.",
                ),
                numbers={"rows": number(6, 25), "cols": number(5, 25)},
                total="rows * cols",
                ask="How many tiles is that?",
            ),
            Part(
                "A window saves {A.him} {saved} of these tiles.",
                numbers={"saved": below("total", 25)},
                total="total - saved",
                ask="How many tiles does {A} need because of the window?",
            ),
            Part(
                "For the floor {A.he} needs {k} as many tiles as for the wall.",
                numbers={"k": times(2, 3)},
                total="total + total * k",
                ask="How many tiles does {A} need for the wall and the floor together?",
            ),
            Part(
                "To be safe {A.he} takes {spare} tiles more than {A.he} needs.",
                numbers={"spare": small(4, 30)},
                total="total + spare",
                ask="How many tiles does {A} take?",
            ),
            Part(
                "The tiles that {A.he} takes come in boxes of {box}.",
                numbers={"box": divisor("total", 4, 30)},
                total="total / box",
                ask="How many boxes does {A} buy?",
                name="boxes",
            ),
            Part(
                "A box costs ${p}.",
                numbers={"p": money(6, 20)},
                total="total * p",
                ask="How much do the boxes cost?",
                needs="boxes",
            ),
        ),
    ),
    Family(
        "electricity",
        cast={"A": PEOPLE},
        extras=("{A}'s flat has {z} lamps.", "{A} moved in {z} months ago."),
        parts=(
            Part(
                (
                    "{A}'s heater runs {h} hours a day and uses {kw} units of electricity an hour.",
                    "{A} has a heater that uses {kw} units of electricity an hour. It runs {h} hours a day.",
                ),
                numbers={"h": small(2, 9), "kw": small(2, 4)},
                total="h * kw",
                ask="How many units does the heater use in a day?",
            ),
            Part(
                "Everything else in the flat uses {rest} units a day.",
                numbers={"rest": small(4, 20)},
                total="total + rest",
                ask="How many units does {A} use in a day?",
            ),
            Part(
                "The bill is for {days} such days.",
                numbers={"days": small(20, 31)},
                total="total * days",
                ask="How many units are on the bill?",
                name="bill",
                required=True,
            ),
            Part(
                "Solar panels on the roof provide {sun} of the units on the bill for nothing.",
                numbers={"sun": below("total", 50)},
                total="total - sun",
                ask="How many units does {A} have to pay for?",
            ),
            Part(
                "A unit costs ${p}.",
                numbers={"p": money(2, 3)},
                total="total * p",
                ask="How much does {A} pay for the electricity?",
                name="price",
            ),
            Part(
                "There is also a fixed fee of ${fee}.",
                numbers={"fee": money(5, 25)},
                total="total + fee",
                ask="How much does {A} pay together with the fee?",
                needs="price",
            ),
        ),
    ),
)
