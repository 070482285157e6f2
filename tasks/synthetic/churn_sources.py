"""The five exports of the churn pipeline, invented: a substitute until someone provides real ones.

Knows what goes wrong in an export and how often, how the files are written block by block, and how to tell invented
files from someone's own; what the customers do is in `tasks.synthetic.churn_people`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, ValidationError

from tasks.contract import Model, Output, PermanentError, Run, WrittenFile, reusable
from tasks.files.places import Files
from tasks.files.run_files import RunFiles, files_of
from tasks.synthetic.churn_people import People, active_user, demographics, funds, marketplace, payments, people

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from tasks.synthetic.churn_people import Columns

EDITION = 1
"""Raise it when the same arguments would give other bytes, so files of an earlier release are made again."""
BLOCK = 20_000
"""Customers held in memory at a time."""
MARKER = "_generated.json"


@dataclass(frozen=True, slots=True)
class Flaw:
    """What goes wrong in a column: each `every`th row has the next of `values` instead of the good one.

    `every` is a multiple of 100, and each flaw begins in a different row below 100: no row has two flaws.
    """

    column: str
    every: int
    values: tuple[str, ...]


REPEATED_EVERY = 200
"""Every 200th row is repeated."""
_FIRST_FLAWED = {"PAYMENTS": 10, "ACTIVE_USER": 25, "DEMOGRAFICOS": 40, "DINERO_CUENTA": 55, "MARKETPLACE_DATA": 70}
"""The row of a file's first flaw; different ones, so the same user is not wrong in every export."""
BAD_DATES = ("2026-02-31", "", "2099-12-31", "31/12/2025")
UNKNOWN_USERS = ("90000001", "90000002", "90000003")
"""Customers with payments who are in no other export."""
_NOBODY = Flaw("CUS_CUST_ID_BUY", 1000, ("", "0"))

FLAWS: Mapping[str, tuple[Flaw, ...]] = {
    "PAYMENTS": (
        _NOBODY,
        Flaw("CUS_CUST_ID_BUY", 500, UNKNOWN_USERS),
        Flaw("CUS_CUST_ID_SEL", 1000, ("",)),
        Flaw("FECHA", 400, BAD_DATES),
        Flaw("SPENT", 500, ("", "-25.5", "99999999999.0")),
        Flaw("TPV_SEGMENT_DETAIL", 400, ("", "Unknown")),
        Flaw("DESCUENTO", 500, ("", "-3.2")),
    ),
    "ACTIVE_USER": (
        _NOBODY,
        Flaw("MAU_MP_1", 500, ("", "2")),
        Flaw("MAU_ML_1", 500, ("", "-1")),
        Flaw("MAU_ML_2", 500, ("",)),
        Flaw("last_login_mp_date_1", 200, BAD_DATES),
    ),
    "DEMOGRAFICOS": (
        _NOBODY,
        Flaw("AGE", 100, ("", "-5", "250")),
        Flaw("GENDER", 100, ("", "?")),
        Flaw("CARD_TYPE", 100, ("", "Platinum+")),
        Flaw("CITY", 100, ("",)),
    ),
    "DINERO_CUENTA": (
        _NOBODY,
        Flaw("PLATA_CUENTA_1", 200, ("", "-50000.0", "99999999999.0")),
        Flaw("PLATA_CUENTA_2", 200, ("", "-50000.0")),
        Flaw("INVERSION", 200, ("", "Maybe")),
    ),
    "MARKETPLACE_DATA": (
        _NOBODY,
        Flaw("SPENT_ML", 200, ("", "-10.0")),
        Flaw("RECENCY_ML", 200, BAD_DATES),
        Flaw("FREQUENCY_ML", 200, ("", "-3")),
    ),
}
"""The known dirt of each export."""


class Sources(Output):
    """The rows of each export that is there now, including bad and repeated ones."""

    payments: int
    active_user: int
    demograficos: int
    dinero_cuenta: int
    marketplace_data: int
    generated: bool
    """Whether they are invented; false if someone's own files were kept."""


@reusable("synthetic.churn_sources", role="source")
def churn_sources(
    users: Annotated[int, Field(ge=1, le=50_000_000)],
    until: dt.date,
    horizon_days: Annotated[int, Field(ge=1, le=366)],
    folder: WrittenFile,
    files: Files,
    days: Annotated[int, Field(ge=1, le=1830)] = 180,
    seed: int = 0,
    *,
    run: Run,
) -> Sources:
    """Invent the five exports of the churn pipeline as CSV files in `folder`, unless someone's own files are there.

    PAYMENTS.csv has the payments of the `horizon_days` up to and including `until`, and of the `days` before them; the
    other four describe the users at the end of the day before the horizon. About three in ten of the recent payers
    stop; a fair model tells them apart with a ROC AUC of about 0.8. The same arguments give the same bytes; a later
    `until` continues with the same people, another `seed` makes others. Values are missing or bad, rows repeated and
    users unknown at fixed rates. A file in `folder` that no run wrote is someone's own: it is never overwritten, and
    the run takes all five as they are; the log has their digests. Raises PermanentError if some, but not all, of
    someone's own five files are there.
    """
    exports = Exports(files_of(files, run), folder)
    wanted = Arguments(users=users, until=until, horizon_days=horizon_days, days=days, seed=seed)
    if own := [name for name in FLAWS if exports.is_own(name)]:
        return _taken(exports, own, run)
    marker = exports.marker()
    if marker and marker.arguments == wanted and exports.are_kept():
        exports.publish()  # an earlier attempt may have ended before it did
        run.log.info("%s: this run has already made them with the same arguments", exports.address)
        return _sources(marker.rows, generated=True)
    started = monotonic()
    rows = generate(exports, wanted)
    counts = ", ".join(f"{count:,} of {name}" for name, count in rows.items())
    run.log.info("%s: rows made: %s, in %.1f s", exports.address, counts, monotonic() - started)
    return _sources(rows, generated=True)


class Arguments(Model):
    """The arguments that determine every byte of the files."""

    users: int
    until: dt.date
    horizon_days: int
    days: int
    seed: int
    edition: int = EDITION

    @property
    def cutoff(self) -> dt.date:
        """The last day before the horizon."""
        return self.until - dt.timedelta(days=self.horizon_days)

    @property
    def first(self) -> dt.date:
        """The first day with payments."""
        return self.cutoff - dt.timedelta(days=self.days - 1)


class Marker(Model):
    """The content of `_generated.json`, which a run writes when its exports are complete."""

    arguments: Arguments
    rows: dict[str, int]
    """Rows of each file."""


class Earlier(BaseModel):
    """What an earlier release wrote to `_generated.json` in the folder: the digests of the files that it made."""

    digests: dict[str, list[str]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exports:
    """A folder of exports: those with its name, and the run's own."""

    files: RunFiles
    folder: str

    @property
    def address(self) -> str:
        """Where people put theirs."""
        return self.files.place.address(self.folder)

    def path(self, name: str) -> str:
        """Return the path of an export."""
        return f"{self.folder}/{name}.csv"

    def there(self) -> list[str]:
        """Return the exports in the folder."""
        return [name for name in FLAWS if self.files.place.exists(self.path(name))]

    def is_own(self, name: str) -> bool:
        """Return whether the export in the folder is one that no run wrote."""
        path = self.path(name)
        if not self.files.place.exists(path) or self.files.is_recorded(path):
            return False
        return self.files.place.digest(path) not in self._earlier().digests.get(name, ())

    def _earlier(self) -> Earlier:
        text = self.files.place.text(f"{self.folder}/{MARKER}")
        try:
            return Earlier.model_validate_json(text or "{}")
        except ValidationError as error:
            path = self.files.place.address(f"{self.folder}/{MARKER}")
            problem = f"{path} was not written by this step; remove it to keep the CSV files"
            raise PermanentError(f"{problem} next to it as your own, or remove all to have them made again") from error

    def marker(self) -> Marker | None:
        """Return what this run's exports were made from; None unless they were completed."""
        path = f"{self.folder}/{MARKER}"
        text = self.files.place.text(self.files.own(path)) if self.files.kept(path) else None
        return None if text is None else Marker.model_validate_json(text)

    def are_kept(self) -> bool:
        """Return whether the run has all exports as they were made."""
        return all(self.files.kept(self.path(name)) for name in FLAWS)

    def publish(self) -> None:
        """Let the names in the folder have the exports of the greatest run date, except someone's own."""
        for name in FLAWS:
            self.files.publish(self.path(name), partial(self.is_own, name))
        self.files.publish(f"{self.folder}/{MARKER}")

    def lines(self, name: str) -> int:
        """Return how many lines the run's own export has after its header."""
        with self.files.place.read(self.files.own(self.path(name))) as file:
            return _lines(file)


def _lines(file: Path) -> int:
    with file.open("rb") as content:
        return max(sum(1 for _ in content) - 1, 0)


def _taken(exports: Exports, own: Sequence[str], run: Run) -> Sources:
    """Let someone's own exports be the run's, as they are now; refuse an incomplete set."""
    if lacking := sorted(set(FLAWS) - set(exports.there())):
        named = ", ".join(f"{name}.csv" for name in own)
        problem = f"{exports.address} has {named}, which this step did not make, but no {lacking[0]}.csv"
        raise PermanentError(f"{problem}; add {', '.join(lacking)}, or name another `folder` to have all made")
    for name in FLAWS:
        digest = exports.files.take(exports.path(name))
        whose = "somebody's own" if name in own else "made by an earlier run"
        run.log.info("%s/%s.csv (%s): taken as it is, SHA-256 %s", exports.address, name, whose, digest)
    return _sources({name: exports.lines(name) for name in FLAWS}, generated=False)


def _sources(rows: Mapping[str, int], *, generated: bool) -> Sources:
    return Sources.model_validate({name.lower(): count for name, count in rows.items()} | {"generated": generated})


def generate(exports: Exports, wanted: Arguments, block: int = BLOCK) -> dict[str, int]:
    """Write all exports, `block` users at a time, then the marker; return the rows of each."""
    rows = {}
    for name, columns in _columns(wanted).items():
        with exports.files.write(exports.path(name), partial(exports.is_own, name)) as file:
            rows[name] = _write(file, map(columns, _blocks(wanted, block)), _Dirt(FLAWS[name], _FIRST_FLAWED[name]))
    with exports.files.write(f"{exports.folder}/{MARKER}") as file:
        file.write_text(Marker(arguments=wanted, rows=rows).model_dump_json(indent=1) + "\n", encoding="utf-8")
    return rows


def _columns(wanted: Arguments) -> dict[str, Callable[[People], Columns]]:
    """Return the function that makes the columns of each export."""
    return {
        "PAYMENTS": lambda who: payments(who, wanted.first, wanted.until),
        "ACTIVE_USER": lambda who: active_user(who, wanted.cutoff),
        "DEMOGRAFICOS": demographics,
        "DINERO_CUENTA": lambda who: funds(who, wanted.cutoff),
        "MARKETPLACE_DATA": lambda who: marketplace(who, wanted.cutoff),
    }


def _blocks(wanted: Arguments, block: int) -> Iterator[People]:
    for first in range(0, wanted.users, block):
        yield people(wanted.seed, first, min(first + block, wanted.users))


def _write(file: Path, blocks: Iterator[Columns], dirt: _Dirt) -> int:
    """Write the rows of `blocks`, some of them spoiled, and return how many were written."""
    import pyarrow as pa
    from pyarrow.csv import CSVWriter, WriteOptions

    options = WriteOptions(quoting_style="none", quoting_header="none")  # no value has a comma, a quote or a newline
    made = written = 0
    with ExitStack() as opened:
        writer = None
        for columns in blocks:
            good = pa.table(columns)
            table = dirt.repeated(dirt.spoiled(good, made), made)
            writer = writer or opened.enter_context(CSVWriter(file, table.schema, write_options=options))
            writer.write_table(table)
            made, written = made + len(good), written + len(table)
    return written


@dataclass(frozen=True, slots=True)
class _Dirt:
    """What goes wrong in one export. `row` is the number of a block's first row in the whole export."""

    flaws: Sequence[Flaw]
    first: int
    """The first row that is repeated; the flaws begin after it."""

    def spoiled(self, table: pa.Table, row: int) -> pa.Table:
        """Return the rows with their flaws; a column that can have flaws becomes text."""
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute

        for nth, flaw in enumerate(self.flaws, start=1):
            rows = _every(flaw.every, self.first + nth, row, len(table))
            flawed = np.zeros(len(table), dtype=bool)
            flawed[rows] = True
            values = pa.array(flaw.values).take(pa.array((row + rows) // flaw.every % len(flaw.values)))
            place = table.schema.get_field_index(flaw.column)
            text = table.column(place).combine_chunks().cast(pa.string())
            table = table.set_column(place, flaw.column, compute.replace_with_mask(text, flawed, values))
        return table

    def repeated(self, table: pa.Table, row: int) -> pa.Table:
        """Return the rows, some of them twice."""
        import numpy as np

        times = np.ones(len(table), dtype=np.int64)
        times[_every(REPEATED_EVERY, self.first, row, len(table))] = 2
        return table.take(np.repeat(np.arange(len(table)), times))


def _every(step: int, first: int, row: int, count: int) -> NDArray[np.int64]:
    """Return the places of rows `first`, `first + step`, … in a block of `count` rows that begins with `row`."""
    import numpy as np

    return np.arange((first - row) % step, count, step)
