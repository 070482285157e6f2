"""How values are read by their path: those of the wrong form are reported, and left out.

Knows YAML's forms and the tables of Airflow's arguments; not what a pipeline is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from factory.language.arguments import Argument, ArgumentValue, read_argument
from factory.language.document import Value, value_at
from factory.language.errors import Path, did_you_mean
from factory.language.report import Report

Airflow: TypeAlias = Mapping[str, ArgumentValue]
"""Arguments for Airflow, by Airflow's own names."""


@dataclass
class Reader:
    """Reads values by their path, and reports those of the wrong form."""

    report: Report
    date_paths: set[Path] = field(default_factory=set)

    def airflow(self, values: Mapping[str, Value], path: Path, table: Mapping[str, Argument]) -> Airflow:
        """Read those of `values` that are Airflow's arguments."""
        read: dict[str, ArgumentValue] = {}
        for name, value in values.items():
            argument = table.get(name)
            if argument is None or argument.kind in ("code", "spec"):
                continue
            if argument.kind == "datetime":
                self.date_paths.add((*path, name))
            try:
                read[name] = read_argument(argument, value)
            except ValueError as error:
                self.report.add("wrong-value", (*path, name), f"{name} is {shown(value)}; it should be {error}")
        return read

    def names(self, value: Value, path: Path, what: str = "a step") -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        wrong = [one for one in values if not isinstance(one, str)]
        if wrong:
            self.report.add(
                "wrong-type",
                path,
                f"{path[-1]} contains {shown(wrong[0])}; it should be the name of {what}, or a list of names",
            )
        return tuple(one for one in values if isinstance(one, str))

    def text(self, value: Value, path: Path) -> str | None:
        if isinstance(value, str):
            return value
        self.report.add("wrong-type", path, f"{path[-1]} is {shown(value)}; it should be a text")
        return None

    def mapping(self, value: Value, path: Path) -> dict[str, Value]:
        if isinstance(value, dict):
            return value
        what = path[-1] if path else "the file"
        self.report.add("wrong-type", path, f"{what} is {shown(value)}; it should be a mapping")
        return {}

    def sequence(self, value: Value, path: Path) -> list[Value]:
        if isinstance(value, list):
            return value
        self.report.add("wrong-type", path, f"{path[-1]} is {shown(value)}; it should be a list")
        return []

    def unknown_keys(
        self,
        values: Mapping[str, Value],
        path: Path,
        allowed: Collection[str],
        table: Mapping[str, Argument],
        what: str,
    ) -> None:
        for key in values:
            if key in allowed:
                continue
            refused = table.get(key)
            if refused is not None and refused.kind == "code":
                hint = refused.instead or "a spec contains no code"
                self.report.add(
                    "code-argument", (*path, key), f'Airflow\'s "{key}" cannot be set in a spec', hint, key=True
                )
            else:
                self.report.add(
                    "unknown-key",
                    (*path, key),
                    f'"{key}" is not a key of {what}',
                    partial(did_you_mean, key, allowed, "keys"),
                    key=True,
                )

    def stray_dates(self) -> None:
        for path in self.report.document.dates - self.date_paths:
            text = value_at(self.report.document.value, path)
            message = f"{text} is a date in YAML 1.1 and a text in YAML 1.2"
            self.report.add("implicit-date", path, message, f'quote it: "{text}"')


def shown(value: Value) -> str:
    """Return a value as a message has it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
