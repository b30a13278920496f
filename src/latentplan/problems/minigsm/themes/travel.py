"""Roads, trains, buses and hikes."""

from latentplan.problems.minigsm.number_kinds import (
    above,
    below,
    divisor,
    measure,
    money,
    multiple,
    note,
    number,
    part_of,
    small,
    times,
)
from latentplan.problems.minigsm.story_template import PEOPLE, Family, Part

_EXTRAS = (
    "{A} is carrying {z} sandwiches.",
    "{A.His} favourite song is {z} weeks old.",
)

FAMILIES = (
    Family(
        "road_trip",
        cast={"A": PEOPLE},
        extras=("The car is {z} years old.", "On the way {A} counts {z} bridges."),
        parts=(
            Part(
                (
                    "{A} drives for {h} hours at {v} km an hour.",
                    "On a long journey {A} first drives {h} hours at a speed of {v} km an hour.",
                ),
                numbers={"h": small(2, 6), "v": multiple(5, 8, 20)},
                total="h * v",
                ask="How many kilometres does {A} drive?",
            ),
            Part(
                "After a break {A.he} goes on for {h2} hours at {w} km an hour.",
                numbers={"h2": small(2, 5), "w": multiple(5, 8, 20)},
                total="total + h2 * w",
                ask="How many kilometres has {A.he} driven by then?",
            ),
            Part(
                "Then {A.he} takes a detour of {d} km.",
                numbers={"d": number(5, 60)},
                total="total + d",
                ask="How many kilometres has {A.he} driven with the detour?",
            ),
            Part(
                "The whole journey is {whole} km long.",
                numbers={"whole": above("total", 100, 240)},
                total="whole - total",
                ask="How many kilometres does {A.he} still have to drive?",
                name="rest",
            ),
            Part(
                "{A.He} wants to drive the rest in {last} hours.",
                numbers={"last": divisor("total", 2, 3)},
                total="total / last",
                ask="How many kilometres an hour does {A.he} have to drive?",
                needs="rest",
            ),
        ),
    ),
    Family(
        "cycling_tour",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=_EXTRAS,
        parts=(
            Part(
                (
                    "On Monday {A} cycles {a} km.",
                    "{A} is on a cycling tour and rides {a} km on Monday.",
                ),
                numbers={"a": measure(10, 60)},
                total="a",
            ),
            Part(
                "On Tuesday {A.he} rides {more} km more than on Monday.",
                numbers={"more": measure(3, 30)},
                let={"b": "a + more"},
                total="a + (a + more)",
                ask="How many kilometres does {A} ride on the two days together?",
                name="tuesday",
            ),
            Part(
                "On Tuesday it rains, and {A.he} rides {less} km less than on Monday.",
                numbers={"less": below("a")},
                let={"b": "a - less"},
                total="a + (a - less)",
                ask="How many kilometres does {A} ride on the two days together?",
                unless="tuesday",
                name="tuesday",
            ),
            Part(
                "On Wednesday {A.he} manages {k} as many kilometres as on Tuesday.",
                numbers={"k": times(2, 3)},
                total="total + b * k",
                ask="How many kilometres is that on the three days together?",
                needs="tuesday",
                name="wednesday",
            ),
            Part(
                "After that {A.he} rides {each} km a day for {days} days.",
                numbers={"each": number(10, 60), "days": small(2, 5)},
                total="total + each * days",
                ask="How many kilometres does {A} ride in all?",
                needs="tuesday",
            ),
            Part(
                "{B} starts later and rides {short} km less than {A} does in all.",
                numbers={"short": below("total", 50)},
                total="total - short",
                ask="How many kilometres does {B} ride?",
                needs="tuesday",
            ),
        ),
    ),
    Family(
        "bus_ride",
        cast={"A": PEOPLE},
        extras=("{A} has driven buses for {z} years.", "The bus has {z} windows."),
        parts=(
            Part(
                (
                    "{A} drives a bus. When {A.he} sets off, there are {n} passengers on board.",
                    "There are {n} passengers on {A}'s bus when {A.he} drives off.",
                ),
                numbers={"n": number(15, 60)},
                total="n",
            ),
            Part(
                "At the first stop {off} people get off and {on} get on.",
                numbers={"off": below("total", 50), "on": number(2, 15)},
                total="total - off + on",
                ask="How many passengers are on the bus now?",
            ),
            Part(
                "At the station {k} of the passengers get off.",
                numbers={"k": part_of("total")},
                total="total - total / k",
                ask="How many passengers stay on the bus?",
            ),
            Part(
                "At the school {groups} groups of {size} pupils get on.",
                numbers={"groups": small(2, 4), "size": small(2, 6)},
                total="total + groups * size",
                ask="How many passengers are on the bus after that?",
            ),
            Part(
                "In front of the museum {out} people get off.",
                numbers={"out": below("total", 60)},
                total="total - out",
                ask="How many passengers are on the bus after the museum?",
            ),
            Part(
                "Each of the passengers still on the bus pays ${fare} at the last stop.",
                numbers={"fare": money(2, 5)},
                total="total * fare",
                ask="How many dollars do these passengers pay at the last stop?",
            ),
        ),
    ),
    Family(
        "train_tickets",
        cast={"A": PEOPLE},
        extras=("The train is {z} minutes late.", "There are {z} stations on the way."),
        parts=(
            Part(
                (
                    "A group of {adults} adults and {kids} children takes the train. {A} buys the tickets.",
                    "{A} buys train tickets for {adults} adults and {kids} children.",
                ),
                numbers={"adults": small(2, 9), "kids": small(2, 12)},
                total="adults + kids",
                ask="How many tickets does {A} buy?",
            ),
            Part(
                "On this train every ticket costs ${p}.",
                numbers={"p": money(3, 20)},
                total=("(adults + kids) * p", "adults * p + kids * p"),
                ask="How much does {A} pay?",
                name="paid",
            ),
            Part(
                "A ticket for an adult costs ${p}, and one for a child ${q} less.",
                numbers={"p": money(8, 25), "q": below("p", 60)},
                total="adults * p + kids * (p - q)",
                ask="How much do the tickets cost?",
                unless="paid",
                name="paid",
            ),
            Part(
                "Reserving seats costs ${seat} for each person.",
                numbers={"seat": money(2, 4)},
                total=("total + (adults + kids) * seat",),
                ask="How much is that with the seats?",
                needs="paid",
            ),
            Part(
                "As a regular customer {A} gets ${less} off the bill.",
                numbers={"less": below("total", 30)},
                total="total - less",
                ask="How much does {A} have to pay?",
                needs="paid",
            ),
            Part(
                "{A} pays with ${note}.",
                numbers={"note": note("total")},
                total="note - total",
                ask="How much change does {A} get?",
                needs="paid",
            ),
        ),
    ),
    Family(
        "hike",
        cast={"A": PEOPLE, "B": PEOPLE},
        extras=("The hut has {z} beds.", "{A}'s rucksack has {z} pockets."),
        parts=(
            Part(
                (
                    "{A} and {B} hike for {days} days and walk {km} km on each of them.",
                    "For {days} days {A} and {B} walk {km} km a day.",
                ),
                numbers={"days": small(2, 9), "km": measure(6, 25)},
                total="days * km",
                ask="How many kilometres do they walk?",
            ),
            Part(
                "Then they spend one day on a round walk of {round} km.",
                numbers={"round": number(5, 20)},
                total="total + round",
                ask="How many kilometres is that in all?",
            ),
            Part(
                "They had planned to walk {k} as far as they really did.",
                numbers={"k": times(2, 3)},
                total="total * k",
                ask="How many kilometres had they planned?",
                name="planned",
            ),
            Part(
                "On the last {more} days they walk {fast} km a day.",
                numbers={"more": small(2, 4), "fast": number(8, 30)},
                total="total + more * fast",
                ask="How many kilometres do they walk on the whole hike?",
                unless="planned",
            ),
            Part(
                "{B} takes a bus for {bus} km of this way, while {A} walks.",
                numbers={"bus": below("total", 40)},
                total="total - bus",
                ask="How many kilometres does {B} walk?",
                unless="planned",
            ),
        ),
    ),
    Family(
        "fuel",
        cast={"A": PEOPLE},
        extras=("The garage is {z} years old.", "{A} has had a driving licence for {z} years."),
        parts=(
            Part(
                (
                    "{A}'s van goes {per} km on a litre of fuel. There are {tank} litres in its tank.",
                    "There are {tank} litres of fuel in {A}'s van, which goes {per} km on each litre.",
                ),
                numbers={"per": small(6, 15), "tank": number(10, 50)},
                total="per * tank",
                ask="How far can {A} drive with this fuel, in kilometres?",
            ),
            Part(
                "{A} first drives {gone} km to work.",
                numbers={"gone": below("total", 50)},
                total="total - gone",
                ask="How many more kilometres can {A} drive with the fuel that is left?",
            ),
            Part(
                "Then {A} makes {trips} trips of {km} km each.",
                numbers={"trips": small(2, 6), "km": small(5, 20)},
                total="total - trips * km",
                ask="How many more kilometres can {A} drive after the trips?",
            ),
            Part(
                "At a garage {A} fills in another {more} litres.",
                numbers={"more": number(5, 30)},
                total=("total + more * per",),
                ask="How many kilometres can {A} drive from the garage?",
            ),
            Part(
                "From now on {A} makes deliveries of {each} km each until the tank is empty.",
                numbers={"each": divisor("total", 4, 40)},
                total="total / each",
                ask="How many deliveries can {A} make?",
                name="deliveries",
            ),
            Part(
                "A delivery earns {A.him} ${pay}.",
                numbers={"pay": money(4, 15)},
                total="total * pay",
                ask="How much do the deliveries earn?",
                needs="deliveries",
            ),
        ),
    ),
)
