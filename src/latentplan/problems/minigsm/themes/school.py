"""Classrooms, books, tests and trips."""

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

_SUPPLIES = things("pencil, crayon, rubber, exercise book, ruler, paint brush")

_EXTRAS = (
    "The school has {z} teachers.",
    "{A}'s classroom is number {z}.",
    "{A} has {z} cousins at this school.",
)

FAMILIES = (
    Family(
        "class_supplies",
        cast={"A": PEOPLE, "x": _SUPPLIES},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "{A}, a teacher, buys {packs} packs of {x.s} with {each} {x.s} in each pack.",
                    "{A} teaches art and buys {packs} packs of {each} {x.s}.",
                ),
                numbers={"packs": number(3, 15), "each": small(6, 24)},
                total="packs * each",
                ask="How many {x.s} does {A} buy?",
            ),
            Part(
                "There are {old} {x.s} left from last year.",
                numbers={"old": number(5, 40)},
                total="total + old",
                ask="How many {x.s} are there together with the old ones?",
            ),
            Part(
                "{A.He} lends {boxes} boxes of {size} {x.s} to another class.",
                numbers={"boxes": small(2, 4), "size": small(4, 10)},
                total="total - boxes * size",
                ask="How many {x.s} does {A.he} have then?",
            ),
            Part(
                "{A.He} keeps {spare} {x.s} as a reserve.",
                numbers={"spare": below("total", 30)},
                total="total - spare",
                ask="How many {x.s} are there for the class?",
            ),
            Part(
                "The {x.s} for the class are shared out evenly among {pupils} pupils.",
                numbers={"pupils": divisor("total", 6, 30)},
                total="total / pupils",
                ask="How many {x.s} does each pupil get?",
                name="shared",
            ),
            Part(
                "One pupil already had {own} {x.s} at home.",
                numbers={"own": small(2, 9)},
                total="total + own",
                ask="How many {x.s} does this pupil have now?",
                needs="shared",
            ),
        ),
    ),
    Family(
        "school_trip",
        cast={"A": PEOPLE},
        extras=("The museum has {z} rooms.", "They leave {z} minutes after eight."),
        parts=(
            Part(
                (
                    "{A} plans a school trip for {classes} classes of {size} pupils.",
                    "There are {classes} classes with {size} pupils each on a trip that {A} has planned.",
                ),
                numbers={"classes": small(2, 6), "size": number(15, 30)},
                total="classes * size",
                ask="How many pupils is that?",
            ),
            Part(
                "On the day {ill} pupils are ill and stay at home.",
                numbers={"ill": small(2, 9)},
                total="total - ill",
                ask="How many pupils go on the trip?",
            ),
            Part(
                "The pupils are joined by {adults} adults.",
                numbers={"adults": small(3, 12)},
                total="total + adults",
                ask="How many people go on the trip?",
            ),
            Part(
                "A ticket for the museum costs ${p} for everyone.",
                numbers={"p": money(2, 9)},
                total="total * p",
                ask="How much do the tickets cost?",
                name="cost",
                required=True,
            ),
            Part(
                "The {coaches} coaches cost ${coach} each.",
                numbers={"coaches": small(2, 4), "coach": number(20, 90)},
                total="total + coaches * coach",
                ask="How much does the trip cost?",
            ),
            Part(
                "The parents have collected ${fund} for it.",
                numbers={"fund": below("total", 60)},
                total="total - fund",
                ask="How much money is missing?",
            ),
        ),
    ),
    Family(
        "reading",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The library has {z} reading chairs.", "The author wrote it {z} years ago."),
        parts=(
            Part(
                (
                    "{A} is reading a book and manages {n} pages a day for {days} days.",
                    "For {days} days {A} reads {n} pages of a book every day.",
                ),
                numbers={"n": number(5, 30), "days": small(3, 9)},
                total="n * days",
                ask="How many pages does {A} read in these days?",
            ),
            Part(
                "At the weekend {A.he} reads another {more} pages.",
                numbers={"more": number(10, 60)},
                total="total + more",
                ask="How many pages has {A.he} read by then?",
            ),
            Part(
                "{B} has read {k} as many pages of the same book as {A}.",
                numbers={"k": times(2, 3)},
                total="total * k",
                ask="How many pages has {B} read?",
                name="B",
            ),
            Part(
                "The book has {pages} pages.",
                numbers={"pages": above("total", 12, 120)},
                total="pages - total",
                ask="How many pages of the book does {A} still have to read?",
                unless="B",
                name="rest",
            ),
            Part(
                "The book has {pages} pages.",
                numbers={"pages": above("total", 12, 120)},
                total="pages - total",
                ask="How many pages does {B} still have to read?",
                needs="B",
                name="rest",
            ),
            Part(
                "Each chapter that is left has {ch} pages.",
                numbers={"ch": divisor("total", 4, 20)},
                total="total / ch",
                ask="How many chapters are left to read?",
                needs="rest",
            ),
        ),
    ),
    Family(
        "test_scores",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "A test has {easy} short questions worth {e} points each and {hard} long ones worth "
                    "{h} points each. {A} solves all of them.",
                    "{A} answers all questions of a test: {easy} short ones for {e} points each and "
                    "{hard} long ones for {h} points each.",
                ),
                numbers={"easy": number(5, 20), "e": small(2, 4), "hard": small(2, 8), "h": small(5, 10)},
                total="easy * e + hard * h",
                ask="How many points does {A} get if every answer is right?",
            ),
            Part(
                "For spelling mistakes {lost} points are taken off {A.his} result.",
                numbers={"lost": small(2, 12)},
                total="total - lost",
                ask="How many points does {A} end up with?",
            ),
            Part(
                "A bonus task gives {A.him} another {bonus} points.",
                numbers={"bonus": small(3, 15)},
                total="total + bonus",
                ask="How many points does {A} have with the bonus?",
            ),
            Part(
                "{B} gets {less} points fewer than {A}.",
                numbers={"less": below("total", 50)},
                let={"b": "total - less"},
                total="total - less",
                ask="How many points does {B} get?",
                name="B",
            ),
            Part(
                "In the next test {B} does better and gets {up} points more than this time.",
                numbers={"up": small(3, 25)},
                total="b + (b + up)",
                ask="How many points does {B} get in the two tests together?",
                needs="B",
            ),
        ),
    ),
    Family(
        "survey",
        cast={"A": PEOPLE},
        extras=("The school is {z} years old.", "The break is {z} minutes long."),
        parts=(
            Part(
                (
                    "{A} asks {n} pupils of {A.his} school what they like to do.",
                    "For a school newspaper {A} talks to {n} pupils.",
                ),
                numbers={"n": multiple(20, 2, 20)},
                total="n",
            ),
            Part(
                "It turns out that {p}% of these pupils play an instrument.",
                numbers={"p": rate("n", (5, 10, 15, 20, 25, 30, 40, 45))},
                let={"music": "percent(n, p)"},
                total="percent(n, p)",
                ask="How many of these pupils play an instrument?",
                name="music",
            ),
            Part(
                "The others do not.",
                total=("n - music", "percent(n, 100 - p)"),
                let={"music": "percent(n, p)"},
                ask="How many of these pupils do not play any instrument?",
                needs="music",
                name="rest",
            ),
            Part(
                "Of those who play none, {k} would like to learn one.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many pupils would like to learn an instrument?",
                needs="rest",
                name="learn",
            ),
            Part(
                "For these learners the music school has {groups} groups with {places} places each.",
                numbers={"groups": small(2, 4), "places": small(2, 6)},
                total="total - groups * places",
                ask="How many of those who would like to learn get no place?",
                needs="learn",
            ),
        ),
    ),
    Family(
        "library",
        cast={"A": PEOPLE},
        extras=("The library opens at {z} minutes past ten.", "{A} has worked there for {z} years."),
        parts=(
            Part(
                (
                    "In the school library {A} fills {shelves} shelves with {books} books each.",
                    "The school library, which {A} looks after, has {shelves} shelves of {books} books.",
                ),
                numbers={"shelves": number(4, 20), "books": number(10, 35)},
                total="shelves * books",
                ask="How many books are on the shelves?",
            ),
            Part(
                "Then {boxes} boxes with {new} new books each arrive.",
                numbers={"boxes": small(2, 5), "new": number(5, 20)},
                total="total + boxes * new",
                ask="How many books does the library have then?",
            ),
            Part(
                "The pupils borrow {out} books.",
                numbers={"out": below("total", 50)},
                total="total - out",
                ask="How many books are in the library now?",
            ),
            Part(
                "After the holidays {back} books are brought back.",
                numbers={"back": number(5, 40)},
                total="total + back",
                ask="How many books are in the library after the holidays?",
            ),
            Part(
                "{A.He} throws away {torn} books that are torn.",
                numbers={"torn": small(3, 15)},
                total="total - torn",
                ask="How many books stay in the library?",
            ),
            Part(
                "{A.He} gives {k} of the books in the library a new cover.",
                numbers={"k": part_of("total")},
                total="total / k",
                ask="How many books get a new cover?",
                name="covers",
            ),
            Part(
                "A cover costs ${p}.",
                numbers={"p": money(2, 4)},
                total="total * p",
                ask="How much do the covers cost?",
                needs="covers",
            ),
        ),
    ),
)
