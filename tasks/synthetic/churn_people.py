"""The invented customers of the churn sources: how often each pays, and what every export says of them.

A customer joins, pays at their own rate, wanes, stops, and after a pause joins again; customers are at different
points of that cycle, so the population looks the same in any week. What a customer does on a day depends only on the
seed, the customer and the day: next week's history is this week's plus one week. Knows nothing about files, or about
what goes wrong in an export.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tasks.draws import draw_key, draws, fractions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from tasks.draws import Fractions, Numbers

    Integers = NDArray[np.int64]
    Columns = dict[str, pa.Array]

FIRST_USER, FIRST_SELLER = 10_000_001, 500_000_001
SELLERS = 20_000

SEGMENTS = {"Online Payments": 0.35, "QR": 0.3, "Point": 0.15, "Services": 0.12, "Transfers": 0.08}
GENDERS = {"F": 0.49, "M": 0.49, "X": 0.02}
CARDS = {"Prepaid": 0.3, "Debit": 0.45, "Credit": 0.25}
CITIES = {
    "São Paulo": 0.25,
    "Ciudad de México": 0.2,
    "Buenos Aires": 0.2,
    "Rio de Janeiro": 0.13,
    "Guadalajara": 0.09,
    "Córdoba": 0.08,
    "Bogotá": 0.05,
}
INVESTING = {"Not Eligible": 0.3, "Eligible": 0.4, "Pending": 0.08, "Investing": 0.22}
"""The values of each enumerated column and their shares, in the order of growing zeal."""

_MONTH = 30
_LOOK_BACK = 365
"""How many days an export looks back for the last time."""
_ORDINALS, _PER_DAY = 1 << 22, 4
"""Numbers reserved for the days of one customer (the calendar ends at 3,652,059) and the payments of one day."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Numbered things, each with its own random numbers."""

    seed: int
    numbers: Numbers

    def even(self, name: str, *when: int) -> Fractions:
        """Draw a number from 0 to below 1 for each: always the same for the same name and time."""
        return fractions(draws(draw_key(self.seed, name, *when), self.numbers))

    def normal(self, name: str, *when: int) -> Fractions:
        """Draw a standard normal number for each."""
        import numpy as np

        length: Fractions = np.sqrt(-2 * np.log1p(-self.even(f"{name}: length", *when)))
        return length * np.cos(2 * np.pi * self.even(f"{name}: angle", *when))


@dataclass(frozen=True, slots=True)
class People(Drawn):
    """Some customers."""

    zeal: Fractions
    """How eager they are, a standard normal number: drives payments, log-ins, funds and purchases."""
    rate: Fractions
    """Payments a day at their best."""
    cycle: Fractions
    """Days from one joining to the next."""
    offset: Fractions
    """Where in the cycle they are on the day of ordinal 0."""
    stops: Fractions
    """Days from joining to the last payment."""
    wanes: Fractions
    """Days over which they lose vigour before they stop."""

    def where(self, included: NDArray[np.bool_]) -> People:
        """Return some of them."""
        parts = (getattr(self, part.name) for part in fields(self)[1:])
        return People(self.seed, *(part[included] for part in parts))

    def vigour(self, day: int) -> Fractions:
        """Return how active they are on a day: 1, falling to 0 when they stop."""
        tenure = (day + self.offset) % self.cycle
        left: Fractions = (self.stops - tenure) / self.wanes
        return left.clip(0, 1)


def people(seed: int, first: int, after: int) -> People:
    """Return customers `first` to before `after`, counted from 0."""
    import numpy as np

    drawn = Drawn(seed, np.arange(first, after, dtype=np.uint64))
    zeal, cycle = drawn.normal("zeal"), 300 + 500 * drawn.even("cycle")
    return People(
        seed,
        drawn.numbers,
        zeal=zeal,
        rate=np.minimum(0.055 * np.exp(zeal), 2),
        cycle=cycle,
        offset=cycle * drawn.even("offset"),
        stops=cycle * (0.55 + 0.65 * drawn.even("stops")),
        wanes=20 + 100 * drawn.even("wanes"),
    )


def payments(who: People, first: dt.date, last: dt.date) -> Columns:
    """Return their payments from `first` to `last`, by customer and day."""
    import numpy as np
    import pyarrow as pa

    person, day, nth = _occasions(who, first.toordinal(), last.toordinal())
    each = Drawn(who.seed, (who.numbers[person] * np.uint64(_ORDINALS) + day) * np.uint64(_PER_DAY) + nth)
    usual = 30 * np.exp(0.7 * who.normal("ticket"))
    spent = np.round(0.5 + usual[person] * np.exp(0.8 * each.normal("spent")), 2)
    thrifty = each.even("discounted") < (0.05 + 0.4 * who.even("thrift") ** 2)[person]
    loyal = each.even("loyal") < 0.6
    return {
        "FECHA": _dates(day.astype(np.int64)),
        "CUS_CUST_ID_SEL": pa.array(FIRST_SELLER + _sellers(who, person, each, loyal=loyal)),
        "CUS_CUST_ID_BUY": _user_ids(who.numbers[person]),
        "SPENT": pa.array(spent),
        "TPV_SEGMENT_DETAIL": _chosen(SEGMENTS, np.where(loyal, who.even("segment")[person], each.even("segment"))),
        "DESCUENTO": pa.array(np.where(thrifty, np.round(spent * (0.05 + 0.25 * each.even("discount")), 2), 0.0)),
    }


def active_user(who: People, cutoff: dt.date) -> Columns:
    """Return how everyone uses the apps: this month and the month before, and the last log-in of a year."""
    import numpy as np
    import pyarrow as pa

    day = cutoff.toordinal()
    since = _days_since(who, "log-in", day, _log_ins)
    return {
        "CUS_CUST_ID_BUY": _user_ids(who.numbers),
        "MAU_MP_1": pa.array((since < _MONTH).astype(np.int8)),
        "MAU_ML_1": _visits(who, day),
        "MAU_ML_2": _visits(who, day - _MONTH),
        "last_login_mp_date_1": _dates(day - since, since < _LOOK_BACK),
    }


def demographics(who: People) -> Columns:
    """Return who they are."""
    import numpy as np
    import pyarrow as pa

    age = np.round(18 + 52 * who.even("age") ** 1.4 + 3 * np.abs(who.normal("age")))
    return {
        "CUS_CUST_ID_BUY": _user_ids(who.numbers),
        "AGE": pa.array(age.astype(np.int64)),
        "GENDER": _chosen(GENDERS, who.even("gender")),
        "CARD_TYPE": _chosen(CARDS, _ranked(0.4 * who.zeal + 0.9 * who.normal("card"))),
        "CITY": _chosen(CITIES, who.even("city")),
    }


def funds(who: People, cutoff: dt.date) -> Columns:
    """Return account holders' balances now and a month ago, and whether they invest."""
    import pyarrow as pa

    day = cutoff.toordinal()
    columns = {
        "CUS_CUST_ID_BUY": _user_ids(who.numbers),
        "PLATA_CUENTA_1": pa.array(_balance(who, day)),
        "PLATA_CUENTA_2": pa.array(_balance(who, day - _MONTH)),
        "INVERSION": _chosen(INVESTING, _ranked(0.4 * who.zeal + 0.6 * who.vigour(day) - 0.4 + who.normal("invests"))),
    }
    return _of_those(columns, who.even("account") < 0.95)


def marketplace(who: People, cutoff: dt.date) -> Columns:
    """Return what the year's marketplace buyers spent there, when last, and how often."""
    import numpy as np
    import pyarrow as pa

    day = cutoff.toordinal()
    since = _days_since(who, "purchase", day, _purchases)
    often = 1 + np.floor(_purchases(who, day) * _LOOK_BACK * (0.2 + 1.6 * who.even("often")))
    columns = {
        "CUS_CUST_ID_BUY": _user_ids(who.numbers),
        "SPENT_ML": pa.array(np.round(often * np.exp(3.2 + 0.6 * who.normal("price")), 2)),
        "RECENCY_ML": _dates(day - since),
        "FREQUENCY_ML": pa.array(often.astype(np.int64)),
    }
    return _of_those(columns, since < _LOOK_BACK)


def _occasions(who: People, first: int, last: int) -> tuple[Integers, Numbers, Numbers]:
    """Return each payment's customer (a place in `who`), day (an ordinal) and number on that day."""
    import numpy as np

    days = [_paying(who, day) for day in range(first, last + 1)]
    person, nth = (np.concatenate(part) for part in zip(*days, strict=True))
    day = np.repeat(np.arange(first, last + 1, dtype=np.uint64), [len(paying) for paying, _ in days])
    order = np.argsort(person, kind="stable")
    return person[order], day[order], nth[order]


def _paying(who: People, day: int) -> tuple[Integers, Numbers]:
    """Return who pays on a day, once for each payment, and the payment's number: a Poisson process, up to a limit."""
    import numpy as np

    rate, drawn = who.rate * who.vigour(day), who.even("pays", day)
    paying = np.flatnonzero(drawn >= np.exp(-rate))
    rate, drawn = rate[paying], drawn[paying]
    exactly = up_to = np.exp(-rate)
    count = np.zeros(len(paying), dtype=np.int64)
    for number in range(1, _PER_DAY + 1):
        count += drawn >= up_to
        exactly = exactly * rate / number
        up_to = up_to + exactly
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(paying, count), nth.astype(np.uint64)


def _days_since(who: People, name: str, last: int, rate: Callable[[People, int], Fractions]) -> Integers:
    """Return how many days before `last` an event with this `rate` last happened; at most _LOOK_BACK."""
    import numpy as np

    since, waiting = np.full(len(who.numbers), _LOOK_BACK), np.arange(len(who.numbers))
    for back in range(_LOOK_BACK):
        happens = who.even(name, last - back) >= np.exp(-rate(who, last - back))
        since[waiting[happens]] = back
        waiting, who = waiting[~happens], who.where(~happens)
    return since


def _log_ins(who: People, day: int) -> Fractions:
    return 0.01 + 2.5 * who.rate * who.vigour(day)


def _purchases(who: People, day: int) -> Fractions:
    import numpy as np

    return 0.01 * np.exp(0.3 * who.zeal + 0.8 * who.normal("shops")) * (0.4 + 0.6 * who.vigour(day))


def _sellers(who: People, person: Integers, each: Drawn, *, loyal: NDArray[np.bool_]) -> Integers:
    """Return the seller of each payment: one of the customer's three regulars, or anyone."""
    import numpy as np

    own = who.numbers[person] * np.uint64(3) + (each.even("own seller") ** 2 * 3).astype(np.uint64)
    anybody = np.where(loyal, fractions(draws(draw_key(who.seed, "own sellers"), own)), each.even("seller"))
    return (anybody**2 * SELLERS).astype(np.int64)


def _visits(who: People, day: int) -> pa.Array:
    """Return 1 for those who visited the marketplace in about the month that ends with `day`, else 0."""
    import numpy as np
    import pyarrow as pa

    visits = 2 * np.exp(0.6 * who.zeal + 0.8 * who.normal("visits")) * (0.4 + 0.6 * who.vigour(day))
    return pa.array((who.even("visit", day // _MONTH) >= np.exp(-visits)).astype(np.int8))


def _balance(who: People, day: int) -> Fractions:
    """Return the account's balance: waning customers withdraw it."""
    import numpy as np

    usual = 4 + 0.6 * who.zeal + 1.2 * who.normal("balance")
    return np.round(np.exp(usual + 0.5 * who.normal("month's balance", day // _MONTH)) * (0.15 + who.vigour(day)), 2)


def _ranked(score: Fractions) -> Fractions:
    """Return standard normal scores as numbers from 0 to 1, about evenly spread."""
    import numpy as np

    return 1 / (1 + np.exp(-1.7 * score))


def _chosen(values: Mapping[str, float], even: Fractions) -> pa.Array:
    """Return, for each number from 0 to below 1, the value whose share it falls into."""
    import numpy as np
    import pyarrow as pa

    limits = np.cumsum(list(values.values()))[:-1]
    return pa.array(list(values)).take(pa.array(np.searchsorted(limits, even, side="right")))


def _dates(ordinals: Integers, known: NDArray[np.bool_] | None = None) -> pa.Array:
    import pyarrow as pa

    since_1970 = ordinals - dt.date(1970, 1, 1).toordinal()
    return pa.array(since_1970, pa.int32(), mask=None if known is None else ~known, safe=False).cast(pa.date32())


def _user_ids(numbers: Numbers) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    return pa.array(FIRST_USER + numbers.astype(np.int64))


def _of_those(columns: Columns, included: NDArray[np.bool_]) -> Columns:
    import pyarrow as pa

    return {name: values.filter(pa.array(included)) for name, values in columns.items()}
