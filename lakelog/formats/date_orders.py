"""In which order a file has day, month and year: what most of its dates allow, and of years of two
digits what makes its dates lie in the fewest years, then in the latest one that has begun."""

from __future__ import annotations

import functools
import re
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

AHEAD, TOKENS = 60, 6
"""Characters, and words, that may stand before a time."""
MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_FOREIGN = (
    "jän|janv|januar|janvier|enero|ene|gen|gennaio|janeiro",
    "févr|fév|fevr|februar|février|febrero|febbraio|fev|fevereiro",
    "mär|märz|mars|marzo|março|mrt|maart",
    "avr|avril|abr|abril|aprile",
    "mai|mayo|mag|maggio|maio|mei|maj",
    "juin|juni|junio|giu|giugno|junho",
    "juil|juillet|juli|julio|lug|luglio|julho",
    "août|aout|ago|agosto|augustus",
    "sept|septembre|septiembre|settembre|setembro",
    "okt|oktober|octobre|octubre|ott|ottobre|outubro",
    "novembre|noviembre|novembro",
    "déc|dez|dezember|décembre|dic|diciembre|dicembre|dezembro|des",
)
"""Months as programs write them in German, French, Spanish, Italian, Portuguese and Dutch."""
FOREIGN = dict(
    sorted(
        ((name, n) for n, names in enumerate(_FOREIGN, 1) for name in names.split("|")),
        key=lambda pair: -len(pair[0]),
    )
)
"""The number of a month by its name, the longest names first."""
GAP = r"(?:\]? ?[T_,;@|\t] ?\[?|\]?,? {1,3}(?:at |- |-- |\| )?\[?|::?|-)"
"""What stands between a date and a clock."""
TRIPLE = r"(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})(?P=s)(?P<c>\d{4}|\d\d)"
HEAD = AHEAD + 64
_TRIPLES = re.compile(
    rf"(?<![\d.:/-]){TRIPLE}(?:{GAP}\d{{1,2}}[:.h]\d\d|(?=[\])\"]*$))", re.ASCII | re.MULTILINE
)
_ORDERS = {
    ("/", 4): ("mdy", "dmy"),
    (".", 4): ("dmy", "mdy"),
    ("-", 4): ("dmy", "mdy"),
    ("/", 2): ("mdy", "dmy", "ymd"),
    (".", 2): ("dmy", "mdy", "ymd"),
    ("-", 2): ("ymd", "dmy", "mdy"),
    ("/", 0): ("md", "dm"),
    (".", 0): ("dm", "md"),
    ("-", 0): ("md", "dm"),
}
"""The orders in which numbers may stand, by what stands between them and the digits of the year;
the first that is possible is taken where the file settles nothing."""


@dataclass
class _OrderFit:
    """What the dates of a file are in one order: how many are days, and of which years."""

    count: int = 0
    years: set[int] = field(default_factory=set)

    def add(self, day: tuple[int | None, int, int] | None) -> None:
        if day is not None:
            self.count += 1
            self.years |= {day[0]} if day[0] is not None else set()

    def rank(self) -> tuple[int, int, bool, int]:
        """The higher, the likelier: a log has days of few years, and of none that is to come."""
        year, this_year = max(self.years, default=0), datetime.now(UTC).year
        has_begun = year <= this_year
        return (self.count, -len(self.years), has_begun, year if has_begun else -year)


class DateOrders:
    """The orders of day, month and year in a file, of each way to write them: those that most of
    its dates allow."""

    HEAD, OBJECT = HEAD, 4096
    """Characters that are looked at of a line of text, and of an object, whose time may stand
    anywhere."""

    def __init__(self, reach: int = HEAD) -> None:
        self._reach = reach
        self._fits: dict[tuple[str, int], dict[str, _OrderFit]] = {}
        self._likely: dict[tuple[str, int], tuple[str, ...]] = {}
        self._pending: Iterable[bytes] = ()

    def add(self, lines: Iterable[bytes]) -> None:
        """Learn from more lines of the file."""
        self._likely.clear()
        heads = "\n".join(line[: self._reach].decode("utf-8", "ignore") for line in lines)
        for match in _TRIPLES.finditer(heads):
            key = match["s"], len(match["c"])
            fits = self._fits.setdefault(key, {o: _OrderFit() for o in _ORDERS[key]})
            for order, fit in fits.items():
                fit.add(_date(order, match["a"], match["b"], match["c"]))

    def of(self, key: tuple[str, int], *numbers: str) -> tuple[str, ...]:
        """Return the orders in which to try the numbers of a date, by what stands between them and
        the digits of the year; where no date of the file is known the numbers are all there is."""
        if self._pending:
            pending, self._pending = self._pending, ()
            self.add(pending)
        if key in self._likely:
            return self._likely[key]
        orders, fits = _ORDERS[key], self._fits.get(key)
        if fits is None:
            fits = {order: _OrderFit() for order in orders}
            for order, fit in fits.items():
                fit.add(_date(order, *numbers))
        # of equal ones the first, which is the order that is taken anyway
        likely = (max(orders, key=lambda order: fits[order].rank()), *orders)
        if key in self._fits:
            self._likely[key] = likely
        return likely

    @contextmanager
    def settled(self, lines: Iterable[bytes] = ()) -> Iterator[None]:
        """Read days and months in the order that a file was found to have; from `lines` more is
        learned as soon as an order is open."""
        self._pending = lines
        token = _settled.set(self)
        try:
            yield
        finally:
            _settled.reset(token)
            self._pending = ()


_NO_ORDERS = DateOrders()
_settled: ContextVar[DateOrders] = ContextVar("orders of day and month", default=_NO_ORDERS)


def date_of(groups: Mapping[str, str | None]) -> tuple[int | None, int, int] | None:
    """Year, month and day; no year where none is said."""
    if leading_number := groups.get("a"):
        year_digits = groups.get("c") or ""
        # The order that most dates of the file allow comes first, the next ones are for a date that
        # has no such day in it.
        numbers = leading_number, groups["b"] or "", year_digits
        orders = _settled.get().of((groups["s"] or "", len(year_digits)), *numbers)
        return next(filter(None, (_date(order, *numbers) for order in orders)), None)
    year = groups.get("year") or groups.get("last")
    month = groups.get("month")
    if year is not None and (day_of_year := groups.get("yday")):
        return _of_year(int(year), int(day_of_year))
    day = int(groups["day"] or 0)
    name = groups.get("mon")
    number = _month(name) if name else int(month or 0)
    if year is None and groups.get("yy"):
        return _century(int(groups["yy"] or 0)), number, day
    return int(year) if year else None, number, day


# The lines of a log have few dates.
@functools.lru_cache(1024)
def _date(order: str, *numbers: str) -> tuple[int | None, int, int] | None:
    """A date of numbers in an order; None if it has no such day. Without a year the last number is
    empty."""
    numbers_by_name = dict(zip(order, filter(None, numbers), strict=True))
    if "y" not in numbers_by_name:
        # A leap year: without a year, 29 February has to be a day.
        year, checked = None, 2000
    elif len(numbers_by_name["y"]) == 2 and len(numbers_by_name["d"]) <= 2:
        year = checked = _century(int(numbers_by_name["y"]))
    elif len(numbers_by_name["y"]) == 4:
        year = checked = int(numbers_by_name["y"])
    else:
        return None
    month, day = int(numbers_by_name["m"]), int(numbers_by_name["d"])
    return (year, month, day) if is_day(checked, month, day) else None


def is_day(year: int, month: int, day: int) -> bool:
    """Whether a year has a day."""
    # almost all days are in all months, which is seen without asking the calendar
    return (
        year > 0 and 0 < month < 13 and 0 < day <= (28 if day < 29 else monthrange(year, month)[1])
    )


def _century(year: int) -> int:
    return 2000 + year if year < 69 else 1900 + year


def _of_year(year: int, day_of_year: int) -> tuple[int, int, int]:
    """The date of a day of a year; of one that the year has not, no month."""
    day = date.fromordinal(date(year, 1, 1).toordinal() - 1 + day_of_year)
    return (year, day.month, day.day) if day.year == year else (year, 0, 0)


def _month(name: str) -> int:
    if name.lower() in FOREIGN:
        return FOREIGN[name.lower()]
    return MONTHS.split("|").index(name[:3].title()) + 1
