"""Matches, training and collections of stickers."""

from latentplan.problems.minigsm.number_kinds import (
    below,
    divisor,
    measure,
    money,
    multiple,
    number,
    part_of,
    rate,
    small,
    times,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part

_EXTRAS = (
    "{A}'s shirt has the number {z}.",
    "{A} has been in the club for {z} months.",
    "The changing room has {z} lockers.",
)

FAMILIES = (
    Family(
        "basketball",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "In a basketball match {A} scores {twos} baskets worth 2 points each and {threes} "
                    "baskets worth 3 points each.",
                    "{A} plays basketball: {twos} shots for 2 points and {threes} for 3 points go in.",
                ),
                numbers={"twos": small(2, 15), "threes": small(2, 9)},
                total="twos * 2 + threes * 3",
                ask=("How many points does {A} score?", "How many points is that for {A}?"),
            ),
            Part(
                "{A.He} also gets {free} points from free throws.",
                numbers={"free": small(2, 9)},
                total="total + free",
                ask="How many points does {A} score altogether?",
            ),
            Part(
                "{B} scores {less} points fewer than {A}.",
                numbers={"less": below("total", 60)},
                let={"b": "total - less"},
                total="total - less",
                ask="How many points does {B} score?",
                name="B",
            ),
            Part(
                "In the next match {B} scores {k} as many points as in this one.",
                numbers={"k": times(2, 3)},
                total="b * k",
                let={"next": "b * k"},
                ask="How many points does {B} score in the next match?",
                needs="B",
                name="next",
            ),
            Part(
                "The trainer adds up {B}'s points from both matches.",
                total="b + next",
                ask="What is the sum?",
                needs="next",
            ),
        ),
    ),
    Family(
        "stickers",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The album has {z} pages.", "{A} started to collect {z} weeks ago."),
        parts=(
            Part(
                (
                    "{A} has {a} football stickers.",
                    "{A} collects football stickers and already has {a} of them.",
                ),
                numbers={"a": number(15, 80)},
                total="a",
            ),
            Part(
                "{A.He} buys {packs} packs with {each} stickers in each.",
                numbers={"packs": small(2, 8), "each": small(4, 9)},
                total="total + packs * each",
                ask="How many stickers does {A.he} have now?",
            ),
            Part(
                "{A.He} swaps {give} of {A.his} stickers for {get} rare ones.",
                numbers={"give": below("total", 30), "get": small(2, 5)},
                total="total - give + get",
                ask="How many stickers does {A} have after that?",
            ),
            Part(
                "{A.He} gives {k} of {A.his} stickers to {B}.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many stickers does {A} have left?",
                name="gift",
            ),
            Part(
                "At a car boot sale {A.he} finds another {more} stickers.",
                numbers={"more": number(5, 30)},
                total="total + more",
                ask="How many stickers does {A} end up with?",
            ),
            Part(
                "{A.He} puts all {A.his} stickers into an album, {page} on each page.",
                numbers={"page": divisor("total", 4, 12)},
                total="total / page",
                ask="How many pages does {A} fill?",
            ),
        ),
    ),
    Family(
        "running",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A} runs {km} km on each of {days} days of the week.",
                    "On {days} days of the week {A} goes for a run of {km} km.",
                ),
                numbers={"km": measure(3, 12), "days": small(2, 5)},
                total="km * days",
                ask="How many kilometres does {A} run in a week?",
            ),
            Part(
                "On Sunday {A.he} runs another {long} km.",
                numbers={"long": measure(8, 25)},
                total="total + long",
                ask="How many kilometres does {A.he} run in a week?",
            ),
            Part(
                "{A.He} trains like this for {weeks} weeks.",
                numbers={"weeks": small(3, 9)},
                total="total * weeks",
                ask="How many kilometres does {A} run in this time?",
                name="weeks",
            ),
            Part(
                "{B} trains with {A}, but misses {missed} km of this because of a cold.",
                numbers={"missed": below("total", 40)},
                total="total - missed",
                ask="How many kilometres does {B} run?",
                needs="weeks",
                name="B",
            ),
            Part(
                "Then {B} takes part in {races} races of {race} km.",
                numbers={"races": small(2, 4), "race": small(5, 20)},
                total="total + races * race",
                ask="How many kilometres has {B} run together with the races?",
                needs="B",
            ),
        ),
    ),
    Family(
        "swimming",
        cast={"A": PEOPLE},
        extras=("The pool opened {z} years ago.", "There are {z} other people in the pool."),
        parts=(
            Part(
                (
                    "{A} swims {laps} lengths of a pool that is {pool} metres long.",
                    "A pool is {pool} metres long, and {A} swims {laps} lengths of it.",
                ),
                numbers={"laps": small(6, 30), "pool": multiple(5, 4, 10)},
                total="laps * pool",
                ask="How many metres does {A} swim?",
            ),
            Part(
                "After a rest {A.he} swims another {more} metres in the lake.",
                numbers={"more": multiple(10, 5, 30)},
                total="total + more",
                ask="How many metres does {A.he} swim in all?",
            ),
            Part(
                "{A.His} trainer wants {A.him} to do {goal}% more than this next time.",
                numbers={"goal": rate("total", (5, 10, 20, 25, 50))},
                total=("total + percent(total, goal)", "percent(total, 100 + goal)"),
                ask="How many metres does the trainer want {A} to swim next time?",
                name="goal",
            ),
            Part(
                "Next time {A} swims {k} of the distance that the trainer wants before {A.he} takes a rest.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many metres does {A} swim before the rest?",
                needs="goal",
            ),
        ),
    ),
    Family(
        "stadium",
        cast={"A": PEOPLE},
        extras=("The match lasts {z} minutes longer than usual.", "{A} has sold tickets for {z} years."),
        parts=(
            Part(
                (
                    "A small stadium has {blocks} blocks with {rows} rows of {seats} seats. "
                    "{A} sells the tickets.",
                    "{A} sells tickets for a small stadium with {blocks} blocks. Each block has {rows} rows "
                    "of {seats} seats.",
                ),
                numbers={"blocks": small(2, 4), "rows": small(3, 9), "seats": small(6, 15)},
                total="blocks * rows * seats",
                ask="How many seats does the stadium have?",
            ),
            Part(
                "For the next match {closed} seats are closed for repairs.",
                numbers={"closed": below("total", 20)},
                total="total - closed",
                ask="How many seats can be used?",
            ),
            Part(
                "The club keeps {guests} seats for its guests.",
                numbers={"guests": small(5, 30)},
                total="total - guests",
                ask="How many seats are left for the public?",
            ),
            Part(
                "Every fourth seat for the public is sold to children, that is, a quarter of them.",
                total="total / 4",
                ask="How many seats are sold to children?",
                name="children",
            ),
            Part(
                "A child pays ${p}.",
                numbers={"p": money(2, 6)},
                total="total * p",
                ask="How much do the children pay altogether?",
                needs="children",
            ),
        ),
    ),
    Family(
        "tournament",
        cast={"A": PEOPLE},
        extras=("The sports hall was built {z} years ago.", "The final starts {z} minutes late."),
        parts=(
            Part(
                (
                    "{A} organises a tournament for {teams} teams with {players} players each.",
                    "There are {teams} teams of {players} players in the tournament that {A} organises.",
                ),
                numbers={"teams": number(4, 16), "players": small(5, 12)},
                total="teams * players",
                ask="How many players take part?",
            ),
            Part(
                "Besides the players there are {refs} referees.",
                numbers={"refs": small(3, 12)},
                total="total + refs",
                ask="How many players and referees are there?",
            ),
            Part(
                "Everybody gets {bottles} bottles of water.",
                numbers={"bottles": small(2, 5)},
                total="total * bottles",
                ask="How many bottles does {A} need?",
                name="bottles",
                required=True,
            ),
            Part(
                "The audience needs another {crowd} bottles.",
                numbers={"crowd": number(10, 60)},
                total="total + crowd",
                ask="How many bottles does {A} need in all?",
            ),
            Part(
                "A shop gives {A.him} {crates} crates with {crate} bottles each for nothing.",
                numbers={"crates": small(2, 4), "crate": small(6, 12)},
                total="total - crates * crate",
                ask="How many bottles does {A} still have to buy?",
            ),
            Part(
                "{A.He} buys the bottles that are still needed in packs of {pack}.",
                numbers={"pack": divisor("total", 4, 12)},
                total="total / pack",
                ask="How many packs does {A} buy?",
                name="packs",
            ),
            Part(
                "A pack costs ${p}.",
                numbers={"p": money(2, 6)},
                total="total * p",
                ask="How much do the packs cost?",
                needs="packs",
            ),
        ),
    ),
)
