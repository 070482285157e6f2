"""The files of a run: it writes below a place of its own and reads from there, whatever other runs do meanwhile.

People find a file by the name that the step gives it: there lies the one of the greatest run date. A record of each
file says which run wrote it, so that another pipeline can take the latest one up to its own date.

No lock is held, and none is needed: a run first records its file, and then lets the name have the file of the greatest
recorded date, until it sees nothing greater. Whoever is last sees all records. Nothing here depends on the content.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.contract import MissingResource, Model, PermanentError, Run, TransientError
from tasks.files.places import Files, Place, missing, place_of

_FILES, _RECORDS = ".runs/files", ".runs/records"
_RECORD = re.compile(
    rf"{_RECORDS}/(?P<path>.+)/(?P<dag>[^/]+)/(?P<name>(?P<date>\d{{4}}-\d\d-\d\d)--[0-9a-f]{{8}})\.json"
)
_ATTEMPTS = 20
"""How often another run may publish a file while this one does."""

_SILENT = dt.timedelta(days=1)
"""After which a run that cannot be asked for counts as ended."""

Dated = Literal["up_to_run", "any"]


class Record(Model):
    """Which run wrote a file, and how its content is recognised."""

    dag_id: str
    run_id: str
    deployment: str
    date: dt.date
    task_id: str
    map_index: int
    attempt: str
    written_at: dt.datetime
    stamp: str
    """What the place gives for this content (`Place.stamp`)."""
    sha256: str
    earlier: list[str]
    """The SHA-256 of what the run wrote there before: until it is published again, that has the name."""
    taken: bool = False
    """Whether it is somebody's own file that the run took as it was, and not one that it wrote."""

    def __str__(self) -> str:
        return (
            f"{self.dag_id}.{self.task_id} in run {self.run_id}, for {self.date}, written at {_time(self.written_at)}"
        )


class _Name(NamedTuple):
    """What the name of a record says."""

    date: str
    run: str
    """The name of the run's folder."""
    dag_id: str
    path: str
    """The file's own."""
    modified: dt.datetime

    @property
    def record(self) -> str:
        return f"{_RECORDS}/{self.path}/{self.dag_id}/{self.run}.json"

    @property
    def file(self) -> str:
        return f"{_FILES}/{self.dag_id}/{self.run}/{self.path}"


class _Recorded(NamedTuple):
    """A record, with where its file lies."""

    file: str
    record: Record


def files_of(files: Files, run: Run) -> RunFiles:
    """Return the files of `run` in the place that a step's `files` names."""
    return RunFiles(place_of(files, run), run, files.keep_runs)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run in a place."""

    place: Place
    run: Run
    keep_runs: int
    """How many runs of a pipeline keep their files."""

    @property
    def name(self) -> str:
        """The name of the run's folder: its date, and a hash that tells it from other runs of that date."""
        return self._name("").run

    def address(self, path: str) -> str:
        """Return where people find the run's own file."""
        return self.place.address(self.own(path))

    def own(self, path: str) -> str:
        """Return the path of the run's own file."""
        return self._name(path).file

    @contextmanager
    def read(self, path: str, written_by: str | None = None, dated: Dated = "up_to_run") -> Iterator[Path]:
        """Provide a local file with the content of the file that `find` returns."""
        with self.place.read(self.find(path, written_by, dated)) as file:
            yield file

    def find(self, path: str, written_by: str | None = None, dated: Dated = "up_to_run") -> str:
        """Return the path of the file that a step of this run reads as `path`; the log says whose, if it is another's.

        If a step before it writes `path`, it is the run's own. If the pipeline `written_by` writes it, it is that of
        its latest run dated up to the run's date, or of any date. Otherwise it is the file with that name. Raises
        PermanentError and MissingResource, with the step to clear or the pipeline to run.
        """
        if step := self._writer(path):
            return self._find_own(path, step)
        if written_by and (names := [name for name in self._names(path) if name.dag_id == written_by]):
            return self._find_latest(path, names, dated)
        if not self.place.exists(path):
            if written_by:
                where = self.place.address("").rstrip("/")
                raise MissingResource("file", path, where, f"run {written_by} first")
            raise missing(path, self.place)
        if written_by:
            self.run.log.warning(
                "%s: no run of %s has recorded it; read as it is", self.place.address(path), written_by
            )
        return path

    @contextmanager
    def write(self, path: str, spared: Callable[[], bool] | None = None) -> Iterator[Path]:
        """Provide the path of a local file to write, as `Place.write`; at the end it is the run's own `path`.

        It is then published: the name `path` gets the file of the greatest run date, unless `spared` says that what
        has this name now must stay.
        """
        with self.place.write(self.own(path)) as file:
            yield file
        self._record(path, taken=False)
        self.publish(path, spared)
        self._remove_old()

    def publish(self, path: str, spared: Callable[[], bool] | None = None) -> None:
        """Let the name `path` have the file of the greatest run date, unless `spared` says that it must stay."""
        if spared and spared():
            self.run.log.info("%s: left as it is", self.place.address(path))
        else:
            self._publish(path)

    def take(self, path: str) -> str:
        """Let the file of that name, as it is, be the run's own; return its SHA-256. Raises MissingResource."""
        self.place.link(path, self.own(path))
        return self._record(path, taken=True).sha256

    def is_recorded(self, path: str) -> bool:
        """Return whether the file of that name is one that a run wrote."""
        records = [record for _, record in self._newest(self._names(path)) if not record.taken]
        if self.place.stamp(path) in {record.stamp for record in records}:
            return True
        known = {digest for record in records for digest in (record.sha256, *record.earlier)}
        return bool(known) and self.place.digest(path) in known

    def kept(self, path: str) -> bool:
        """Return whether the run has its own file of that name, unchanged."""
        record = self._read(self._name(path))
        return record is not None and self._holds(self.own(path), record)

    # --- which file is read ---------------------------------------------------------------------------------------

    def _writer(self, path: str) -> str | None:
        """Return the step before this one that writes `path`, or a folder with it."""
        steps = [step for name, step in self.run.before.files.items() if path == name or path.startswith(f"{name}/")]
        return steps[-1] if steps else None

    def _find_own(self, path: str, step: str) -> str:
        record, own, clear = self._read(self._name(path)), self.own(path), f"clear {step!r} with its downstream"
        if record is None or not self.place.exists(own):
            raise PermanentError(f"this run ({self.run.run_id}) has no file {path}{self._instead(path)}; {clear}")
        if not self._holds(own, record):
            raise PermanentError(f"{self.place.address(own)} has changed since {step!r} wrote it; {clear}")
        return own

    def _instead(self, path: str) -> str:
        """Return what is there instead of the run's own file."""
        others = [name for name in self._names(path) if name.dag_id == self.run.dag_id]
        removed = f": {self.keep_runs} runs are kept, and it was removed" if len(others) >= self.keep_runs else ""
        stamp = self.place.stamp(path)
        whose = next((record for _, record in self._newest(others) if record.stamp == stamp), None)
        return removed + (f"; {self.place.address(path)} is of {whose}" if whose else "")

    def _find_latest(self, path: str, names: list[_Name], dated: Dated) -> str:
        dag_id, until = names[0].dag_id, "9999" if dated == "any" else f"{self.run.date}"
        for file, record in self._newest(name for name in names if name.date <= until):
            if not self.place.exists(file):
                continue  # removed meanwhile
            if not self._holds(file, record):
                problem = f"{self.place.address(file)} has changed since {record.task_id} wrote it"
                raise TransientError(
                    "files", f"{problem}; if it is not being written again, clear that step of {dag_id}"
                )
            self.run.log.info("%s: read that of %s", path, record)
            return file
        dates = ", ".join(sorted({name.date for name in names}))
        problem = f"no run of {dag_id} dated up to {self.run.date} has {path}, only of {dates}"
        remedy = "run it for an earlier date, or set `dated: any`"
        raise PermanentError(f"{problem} in {self.place.address('').rstrip('/')}; {remedy}")

    # --- the name that people know --------------------------------------------------------------------------------

    def _publish(self, path: str) -> None:
        """Let the name have the file of the greatest recorded date.

        Another run may do the same at the same time: whoever ends last has seen the records of all that began before.
        """
        for _ in range(_ATTEMPTS):
            greatest = self._greatest(path, self._names(path))
            if greatest is None:  # somebody removed what this run has just written
                return
            if self.place.stamp(path) in (greatest.record.stamp, self.place.stamp(greatest.file)):
                if greatest.file != self.own(path):
                    self.run.log.info("%s stays: it is of %s", self.place.address(path), greatest.record)
                return
            try:
                self.place.link(greatest.file, path)
            except MissingResource as error:
                if error.kind != "file":
                    raise
        raise TransientError("files", f"other runs keep replacing {self.place.address(path)}")

    def _greatest(self, path: str, names: list[_Name]) -> _Recorded | None:
        """Return what was written last for the greatest date, of the files that are there."""
        written = (one for one in self._newest(names) if not one.record.taken)
        return next(
            (one for one in written if self._holds(one.file, one.record) or self._holds(path, one.record)), None
        )

    # --- old runs -------------------------------------------------------------------------------------------------

    def _remove_old(self) -> None:
        """Remove the files of all but the runs that wrote last.

        Never those with a published name, those of a run that may still be running, or the run's own.
        """
        by_path = defaultdict[str, list[_Name]](list)
        last: dict[str, _Name] = {}
        for name in self._below(_RECORDS):
            by_path[name.path].append(name)
            if name.dag_id == self.run.dag_id:
                last[name.run] = max(name, last.get(name.run, name), key=lambda one: one.modified)
        newest = sorted(last.values(), key=lambda one: (one.modified, one.run), reverse=True)
        old = {one.run: one for one in newest[self.keep_runs :] if one.run != self.name}
        ended: dict[str, bool] = {}
        for path, names in by_path.items():
            removed = [name for name in names if name.dag_id == self.run.dag_id and name.run in old]
            if removed and len(names) > 1:  # the only one has the name that people know
                greatest = self._greatest(path, names)
                for name in (one for one in removed if greatest is None or one.file != greatest.file):
                    if name.run not in ended:
                        ended[name.run] = not self._may_run(old[name.run])
                    if ended[name.run]:
                        self.place.remove(name.record)
                        self.place.remove(name.file)

    def _may_run(self, name: _Name) -> bool:
        """Return whether the run that wrote a record, its last one, may still be running.

        A run of another Airflow, which cannot be asked, may be until it has written nothing for a day.
        """
        record = self._read(name)
        if record is None:  # removed meanwhile
            return False
        if record.deployment == self.run.deployment:
            return self.run.is_running(record.dag_id, record.run_id)
        return dt.datetime.now(dt.UTC) - name.modified < _SILENT

    # --- records --------------------------------------------------------------------------------------------------

    def _record(self, path: str, *, taken: bool) -> Record:
        run, own, before = self.run, self.own(path), self._read(self._name(path))
        digest, earlier = self.place.digest(own), set(before.earlier if before else ())
        if before and not before.taken:
            earlier.add(before.sha256)
        record = Record(
            dag_id=run.dag_id,
            run_id=run.run_id,
            deployment=run.deployment,
            date=run.date,
            task_id=run.task_id,
            map_index=run.map_index,
            attempt=run.attempt,
            written_at=dt.datetime.now(dt.UTC),
            stamp=self.place.stamp(own) or "",
            sha256=digest,
            earlier=sorted(earlier - {digest}),
            taken=taken,
        )
        with self.place.write(self._name(path).record) as file:
            file.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        return record

    def _name(self, path: str) -> _Name:
        """Return the name of the run's own record."""
        run = self.run
        identity = hashlib.sha256(f"{run.deployment}\0{run.dag_id}\0{run.run_id}".encode()).hexdigest()[:8]
        return _Name(f"{run.date}", f"{run.date}--{identity}", run.dag_id, path, dt.datetime.now(dt.UTC))

    def _names(self, path: str) -> list[_Name]:
        """Return the names of all records of `path`."""
        return [name for name in self._below(f"{_RECORDS}/{path}") if name.path == path]

    def _below(self, folder: str) -> Iterator[_Name]:
        for entry in self.place.below(folder):
            if found := _RECORD.fullmatch(entry.path):
                yield _Name(found["date"], found["name"], found["dag"], found["path"], entry.modified)

    def _newest(self, names: Iterable[_Name]) -> Iterator[_Recorded]:
        """Yield what is recorded: the greatest date first, and of one date what was written last."""
        for _, same in groupby(sorted(names, reverse=True), key=lambda name: name.date):
            read = ((name, self._read(name)) for name in same)
            dated = [_Recorded(name.file, record) for name, record in read if record]
            yield from sorted(dated, key=lambda one: one.record.written_at, reverse=True)

    def _read(self, name: _Name) -> Record | None:
        text = self.place.text(name.record)
        return None if text is None else Record.model_validate_json(text)

    def _holds(self, path: str, record: Record) -> bool:
        """Return whether a file has the recorded content; it is read only if its stamp is another."""
        stamp = self.place.stamp(path)
        if stamp is None or stamp == record.stamp:
            return stamp is not None
        try:
            return self.place.digest(path) == record.sha256
        except MissingResource:
            return False


def _time(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
