"""What values of Postgres become in Python while a suite is judged, and how they are shown.

Postgres has dates, intervals and numbers that Python's types cannot hold. A date beyond Python's years is a `Moment`
that knows on which side it lies; whatever else has no exact Python value stays the text that the server writes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresSession  # noqa: N812  psycopg2 spells its class in lower case
    from psycopg2.extensions import cursor as Cursor  # noqa: N812
    from sqlalchemy import Engine

_MOMENTS = {1082: 1182, 1114: 1115, 1184: 1185}
"""The types date, timestamp and timestamptz by their number in the catalogue, each with its array type."""
_TEXTS = {
    17: 1001,  # bytea
    1083: 1183,  # time, which Python cannot hold at 24:00
    1186: 1187,  # interval
    1266: 1270,  # timetz
    3904: 3905,  # int4range
    3906: 3907,  # numrange
    3908: 3909,  # tsrange
    3910: 3911,  # tstzrange
    3912: 3913,  # daterange
    3926: 3927,  # int8range
}
"""Types of which Python would hold another value, or one that JSON has no form for."""


_ENDS = {-1: "0001-01-01", 1: "9999-12-31"}
"""A day of Python's for what is before, and after, all of its years."""


class Moment(dt.datetime):
    """A date or time as the server wrote it; without a zone it is in UTC, as in the session.

    Compares with dates and times of every form. A time beyond Python's years is before or after all of those.
    """

    written: str
    is_date: bool
    beyond: int
    """-1 for what is before all of Python's years, 1 for what is after them, else 0."""

    def __new__(cls, written: str, *, is_date: bool = False) -> Self:
        """Read what the server writes in the style ISO."""
        beyond = _beyond(written)
        at = dt.datetime.fromisoformat(_ENDS.get(beyond, written))
        moment = super().__new__(
            cls, at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo
        )
        moment.written, moment.is_date, moment.beyond = written, is_date, beyond
        return moment

    @property
    def _order(self) -> tuple[int, dt.datetime]:
        return self.beyond, as_utc(dt.datetime.combine(self.date(), self.timetz()))

    def __lt__(self, other: dt.date) -> bool:
        return self._order < _order(other)

    def __le__(self, other: dt.date) -> bool:
        return self._order <= _order(other)

    def __gt__(self, other: dt.date) -> bool:
        return self._order > _order(other)

    def __ge__(self, other: dt.date) -> bool:
        return self._order >= _order(other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Moment) and self.beyond and other.beyond:
            return self.written == other.written
        return isinstance(other, dt.date) and self._order == _order(other)

    def __hash__(self) -> int:
        return hash(self.written if self.beyond else self.date() if self.is_date else self._order[1])

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return _moment, (self.written, self.is_date)

    def __str__(self) -> str:
        """Return the text of ISO 8601, or of the server for what that cannot say."""
        if self.beyond or self.is_date:
            return self.written
        return dt.datetime.combine(self.date(), self.timetz()).isoformat()

    def isoformat(self, *_: Any, **__: Any) -> str:
        """Return the same."""
        return str(self)


def _moment(written: str, is_date: bool) -> Moment:  # noqa: FBT001  # unpickled
    return Moment(written, is_date=is_date)


def _beyond(written: str) -> int:
    if written.endswith(" BC") or written == "-infinity":
        return -1
    return 1 if written == "infinity" or written.index("-") > len("9999") else 0


def _order(other: dt.date) -> tuple[int, dt.datetime]:
    if isinstance(other, Moment):
        return other._order  # noqa: SLF001  # its own class
    return 0, as_utc(other)


def as_utc(moment: dt.date) -> dt.datetime:
    """Return a date or time as Postgres compares it with others: a date begins at midnight, and no zone is UTC."""
    if not isinstance(moment, dt.datetime):
        return dt.datetime.combine(moment, dt.time(), dt.UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def keep_values(session: PostgresSession) -> None:
    """Let what Python cannot hold reach it as a `Moment` or as text, in this session."""
    from psycopg2.extensions import new_array_type, new_type, register_type

    for kinds, read in ((_MOMENTS, _read_moment), (_TEXTS, _read_text)):
        for kind, array in kinds.items():
            one: Any = new_type((kind,), f"taskflow_{kind}", read(kind))
            register_type(one, session)
            register_type(new_array_type((array,), f"taskflow_{array}", one), session)


def _read_moment(kind: int) -> Any:
    def read(written: str | None, _cursor: object) -> Moment | None:
        return None if written is None else Moment(written, is_date=kind == min(_MOMENTS))

    return read


def _read_text(_kind: int) -> Any:
    def read(written: str | None, _cursor: object) -> str | None:
        return written

    return read


# The types that a table's columns consist of, but enums and domains, which SQLAlchemy looks up itself.
_USED_TYPES = """
    WITH RECURSIVE used (oid) AS (
        SELECT atttypid FROM pg_attribute
        WHERE attrelid = format('%%I.%%I', %s, %s)::regclass AND attnum > 0 AND NOT attisdropped
        UNION SELECT unnest(ARRAY[typelem, typbasetype]) FROM pg_type JOIN used USING (oid)
    )
    SELECT format_type(oid, NULL) FROM pg_type JOIN used USING (oid) WHERE typtype NOT IN ('d', 'e')
"""


def know_types(engine: Engine, cursor: Cursor, table: str) -> None:
    """Tell SQLAlchemy the names of the types in `table` that it does not know: it fails on a table that has one."""
    from sqlalchemy.types import UserDefinedType

    class Unknown(UserDefinedType[str]):
        name: str

        def __init__(self, *_: Any, **__: Any) -> None:
            """Take a type's modifiers, which nothing asks for."""

        def get_col_spec(self, **_: Any) -> str:
            return self.name

    dialect: Any = engine.dialect
    cursor.execute(_USED_TYPES, table.split("."))
    found = {name.lower(): name for (name,) in cursor.fetchall() if not name.endswith("[]")}
    unknown = {key: type(name, (Unknown,), {"name": name}) for key, name in found.items()}
    dialect.ischema_names = unknown | dialect.ischema_names


def shown(value: Any) -> Any:
    """Return a value of a result as plain JSON, with NaN and infinities; what JSON has no exact form for is text."""
    if isinstance(value, Mapping):
        return {str(name): shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [shown(part) for part in value]
    if hasattr(value, "item"):  # a numpy number
        return shown(value.item())
    if isinstance(value, Decimal):
        number = exact(value)
        return _digits(number) if isinstance(number, Decimal) else number
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def exact(value: Decimal) -> float | Decimal:
    """Return the number that JSON has for `value`; `value` itself if that has other digits."""
    number = float(value)
    return number if not value.is_finite() or Decimal(repr(number)) == value else value


def _digits(value: Decimal) -> str:
    return format(value, "f") if abs(value.adjusted()) <= _WRITTEN_OUT else str(value)


_WRITTEN_OUT = 60
"""How many digits before or after the point are written out."""
