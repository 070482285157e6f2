"""JSON lines: one object a line, whose keys are columns. Numbers keep the digits with which they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tasks.contract import DataRejected
from tasks.postgres.loading.csv_rows import opened
from tasks.postgres.loading.rows import LONGEST, Field, Row, checked, copy_blocks, sound

_KIND = "JSON lines"
_AS_JSON = ("json", "jsonb")


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"holds {constant}, which is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'has the key "{next(name for name in names if names.count(name) > 1)}" twice')
    return made


_DECODER = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=_refused, object_pairs_hook=_object, strict=True
)


@dataclass
class JsonLines:
    """A file of JSON lines. A key that a line lacks is null; one that the table lacks is a problem of the line."""

    path: Path
    address: str
    fields: Sequence[Field]
    unit: str = "line"
    options: str = "FORMAT text, ENCODING 'UTF8'"
    _count: int = 0
    _seen: set[str] = field(default_factory=set)

    @classmethod
    def opened(cls, path: Path, address: str, fields: Sequence[Field]) -> JsonLines:
        """Look at the first line: of the columns that the server can fill, those are read that it has."""
        with opened(path, address, _KIND) as file:
            first = next((line for line in iter(lambda: file.readline(LONGEST), b"") if line.strip()), b"{}")
        try:
            keys = _DECODER.decode(first.decode("utf-8-sig").strip())
        except (ValueError, RecursionError):
            keys = {}  # told when the rows are read
        known = set(keys) if isinstance(keys, dict) else set()
        return cls(path, address, [one for one in fields if not one.may_be_absent or one.name in known])

    @property
    def columns(self) -> Sequence[str]:
        """The columns that are filled."""
        return [one.name for one in self.fields]

    def count(self) -> int:
        """Return how many rows `blocks` has yielded."""
        return self._count

    def blocks(self) -> Iterator[bytes]:
        """Yield the rows as COPY reads them."""
        yield from copy_blocks(checked(self.rows(), self, self._add))

    def _add(self) -> None:
        self._count += 1

    def rows(self) -> Iterator[Row]:
        """Yield the lines as rows."""
        number, blanks = 0, list[int]()
        with opened(self.path, self.address, _KIND) as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise DataRejected(f"{self.address}, line {number:,} has more than {LONGEST:,} bytes")
                if not line.strip():
                    blanks.append(number)
                    continue
                yield from (Row(blank, "", (), "is blank") for blank in blanks)
                blanks = []
                yield self._row(number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        if number == len(blanks):
            raise DataRejected(f"{self.address} is empty")
        never = [one.name for one in self.fields if one.name not in self._seen and not one.may_be_absent]
        if never and self._seen:
            raise DataRejected(f"{self.address} has no line with {', '.join(never)}; its keys are {self._keys}")

    @property
    def _keys(self) -> str:
        return ", ".join(sorted(self._seen))

    def _row(self, number: int, line: bytes) -> Row:
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            value = _DECODER.decode(text.strip())
            return sound(Row(number, text, self._values(value)))
        except json.JSONDecodeError as error:
            if not line.endswith(b"\n") and not text.endswith("}"):
                remedy = "the file seems to be cut off; export or copy it again"
                raise DataRejected(f"{self.address} ends in the middle of line {number:,}: {remedy}") from None
            return Row(number, text, (), f"is not JSON ({error.msg} at character {error.pos + 1})")
        except RecursionError:
            return Row(number, text, (), "is nested too deeply")
        except ValueError as error:
            return Row(number, text, (), str(error))

    def _values(self, value: object) -> list[str | None]:
        if not isinstance(value, Mapping):
            raise ValueError("is not an object with the columns as keys")
        if others := sorted(set(value) - {one.name for one in self.fields}):
            known = ", ".join(one.name for one in self.fields)
            raise ValueError(
                f"has {', '.join(map(repr, others))}, which the table or the first line does not have; it takes {known}"
            )
        self._seen.update(value)
        return [_text(value.get(one.name), one) for one in self.fields]


def _text(value: object, field: Field) -> str | None:
    if value is None:
        return None
    if field.type in _AS_JSON:
        return _json(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list) and field.type.endswith("[]"):
        return _array(value, field)
    kind = "a list" if isinstance(value, list) else "an object"
    raise ValueError(f"has {kind} for {field.name}, which is {field.type}")


def _json(value: object) -> str:
    """Return a value as JSON again, with its numbers as they were written."""
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_json(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def _array(values: list[object], field: Field) -> str:
    return "{" + ",".join(_item(value, field) for value in values) + "}"


def _item(value: object, field: Field) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value, field)
    if isinstance(value, str) and not isinstance(value, _Number):
        return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
    text = _text(value, field)
    assert text is not None
    return text
