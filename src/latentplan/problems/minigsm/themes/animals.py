"""Farms, pets and the zoo."""

from latentplan.problems.minigsm.number_kinds import below, divisor, money, number, part_of, small, times
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part, things

_EXTRAS = (
    "{A} has lived here for {z} years.",
    "The nearest town is {z} km away.",
    "{A.His} house has {z} windows.",
)

FAMILIES = (
    Family(
        "egg_farm",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} keeps {hens} hens, and each of them lays {each} eggs a week.",
                    "On {A}'s farm there are {hens} hens. Every hen lays {each} eggs a week.",
                ),
                numbers={"hens": number(3, 20), "each": small(3, 6)},
                total="hens * each",
                ask=(
                    "How many eggs do the hens lay in a week?",
                    "How many eggs does {A} collect every week?",
                ),
            ),
            Part(
                "This week a fox has scared the hens, and they lay {fewer} eggs fewer than usual.",
                numbers={"fewer": below("total", 40)},
                total="total - fewer",
                ask="How many eggs do they lay this week?",
            ),
            Part(
                (
                    "{A.He} keeps {kept} eggs for {A.his} family.",
                    "{A.His} family eats {kept} of this week's eggs.",
                ),
                numbers={"kept": below("total")},
                total="total - kept",
                ask="How many of this week's eggs are left to sell?",
            ),
            Part(
                "A neighbour brings {more} eggs of her own to be sold with the others.",
                numbers={"more": number(4, 30)},
                total="total + more",
                ask="How many eggs are there to sell this week?",
            ),
            Part(
                "All the eggs that are for sale go into boxes of {box}.",
                numbers={"box": divisor("total", 4, 12)},
                total="total / box",
                ask="How many boxes does {A} fill this week?",
                name="boxes",
            ),
            Part(
                "{A.He} sells each box for ${price}.",
                numbers={"price": money(2, 6)},
                total="total * price",
                ask=(
                    "How much money does {A} make this week?",
                    "How many dollars does {A} get for the eggs this week?",
                ),
                needs="boxes",
            ),
        ),
    ),
    Family(
        "dog_food",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} has {big} big dogs and {little} little dogs.",
                    "{A} looks after {big} big dogs and {little} little dogs.",
                ),
                numbers={"big": small(2, 9), "little": small(2, 9)},
                total="big + little",
                ask="How many dogs is that in all?",
            ),
            Part(
                "Every dog, whatever its size, gets {meals} biscuits a day.",
                numbers={"meals": small(3, 9)},
                total=("total * meals", "big * meals + little * meals"),
                ask="How many biscuits do the dogs eat in a day?",
                name="biscuits",
            ),
            Part(
                "On {days} days of the month {A.he} is away, and a friend feeds the dogs in the same way.",
                numbers={"days": small(3, 9)},
                total="total * days",
                ask="How many biscuits does the friend need for those days?",
                needs="biscuits",
                name="month",
            ),
            Part(
                "There are still {left} biscuits in the cupboard for this.",
                numbers={"left": below("total", 60)},
                total="total - left",
                ask="How many biscuits have to be bought?",
                needs="month",
            ),
            Part(
                "The biscuits are sold in packs of {pack}.",
                numbers={"pack": divisor("total", 4, 30)},
                total="total / pack",
                ask="How many packs have to be bought?",
                needs="month",
                name="packs",
            ),
            Part(
                "A pack costs ${price}.",
                numbers={"price": money(3, 9)},
                total="total * price",
                ask="How much do the packs cost altogether?",
                needs="packs",
            ),
        ),
    ),
    Family(
        "sheep",
        cast={"A": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                ("{A} has a flock of {sheep} sheep.", "{A} is a shepherd with {sheep} sheep."),
                numbers={"sheep": number(20, 80)},
                total="sheep",
            ),
            Part(
                "In spring {mothers} of the sheep have {lambs} lambs each.",
                numbers={"mothers": below("sheep"), "lambs": small(2, 3)},
                total="total + mothers * lambs",
                ask="How many animals are in the flock then?",
            ),
            Part(
                "In May {A.he} sells {sold} animals at the market.",
                numbers={"sold": below("total", 40)},
                total="total - sold",
                ask="How many animals does {A.he} have after the market?",
            ),
            Part(
                "In June {A.he} buys {herds} small herds with {size} sheep in each.",
                numbers={"herds": small(2, 5), "size": number(3, 12)},
                total="total + herds * size",
                ask="How many animals does {A} have in June?",
            ),
            Part(
                "In July {A.he} gives {given} animals to {A.his} brother.",
                numbers={"given": below("total", 30)},
                total="total - given",
                ask="How many animals are left in {A}'s flock?",
            ),
            Part(
                "For the winter {A.he} puts all of them into {barns} barns, the same number in each.",
                numbers={"barns": divisor("total", 2, 8)},
                total="total / barns",
                ask="How many animals are there in each barn?",
            ),
        ),
    ),
    Family(
        "fish_tanks",
        cast={"A": PEOPLE, "B": PEOPLE, "fish": things("goldfish/goldfish, guppy, tetra")},
        parts=(
            Part(
                ("{A} has {a} {fish.s}.", "There are {a} {fish.s} in {A}'s tank."),
                numbers={"a": number(4, 30)},
                let={"both": "a"},
                total="a",
            ),
            Part(
                "{B} has {k} as many {fish.s} as {A}.",
                numbers={"k": times(2, 4)},
                let={"b": "a * k", "both": "a + a * k"},
                total="a * k",
                ask="How many {fish.s} does {B} have?",
                name="b",
            ),
            Part(
                "{B} has {more} {fish.s} more than {A}.",
                numbers={"more": number(3, 20)},
                let={"b": "a + more", "both": "a + (a + more)"},
                total="a + more",
                ask="How many {fish.s} does {B} have?",
                unless="b",
                name="b",
            ),
            Part(
                "They put all their fish into one big tank.",
                total="both",
                ask="How many fish swim in the big tank?",
                needs="b",
                name="joined",
            ),
            Part(
                "They put another {shops} bags of {bag} {fish.s} into it.",
                numbers={"shops": small(2, 4), "bag": small(3, 9)},
                total="total + shops * bag",
                ask="How many fish are there in the big tank now?",
                needs="joined",
            ),
            Part(
                "Then {gone} of the fish are given to the school.",
                numbers={"gone": below("total", 50)},
                total="total - gone",
                ask="How many fish are left in the big tank?",
                needs="joined",
            ),
            Part(
                "Later {k2} of the fish in the big tank turn out to be females.",
                numbers={"k2": part_of("total")},
                total="total / k2",
                ask="How many females are there?",
                needs="joined",
            ),
        ),
    ),
    Family(
        "zoo_visitors",
        cast={"A": PEOPLE, "animal": things("penguin, seal, sea lion, otter")},
        extras=("The zoo is {z} years old.", "The zoo opens at {z} minutes past nine."),
        parts=(
            Part(
                (
                    "{A} feeds the {n} {animal.s} at the zoo, and each of them eats {each} fish a day.",
                    "At the zoo {A} feeds {n} {animal.s}. Each {animal} gets {each} fish a day.",
                ),
                numbers={"n": number(3, 15), "each": small(3, 9)},
                total="n * each",
                ask="How many fish does {A} need every day?",
            ),
            Part(
                "The young ones together get {more} fish more.",
                numbers={"more": small(2, 12)},
                total="total + more",
                ask="How many fish does {A} need every day?",
            ),
            Part(
                "{A.He} orders enough fish for {days} days at a time.",
                numbers={"days": small(3, 7)},
                total="total * days",
                ask="How many fish does {A.he} order?",
            ),
            Part(
                "There are still {left} fish in the freezer, so {A.he} orders that many fewer.",
                numbers={"left": below("total", 40)},
                total="total - left",
                ask="How many fish does {A.he} order?",
            ),
            Part(
                "The fish that {A.he} needs come in buckets of {bucket}.",
                numbers={"bucket": divisor("total", 3, 20)},
                total="total / bucket",
                ask="How many buckets are needed?",
                name="buckets",
            ),
            Part(
                "Each bucket costs ${price}.",
                numbers={"price": money(4, 12)},
                total="total * price",
                ask="How much does {A} pay for the fish?",
                needs="buckets",
                name="cost",
            ),
            Part(
                "Bringing them to the zoo costs another ${van}.",
                numbers={"van": money(5, 20)},
                total="total + van",
                ask="How much does {A} pay in all?",
                needs="cost",
            ),
        ),
    ),
)
