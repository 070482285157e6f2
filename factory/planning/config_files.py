"""A file of `configs/` checked by itself: defaults, an environment, or a suite.

Knows what can be wrong with it whatever specs use it. What its templates name is a matter of each spec: `params.x` and
`steps.y` are not looked up here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path as FilePath
from typing import Literal, TypeAlias

from pydantic import TypeAdapter

from factory.language.document import Value
from factory.language.errors import Path, did_you_mean
from factory.language.report import Problem, Report
from factory.planning.project import EVERY_TASK, Layer, Project, find_root, load_project, read_layer
from factory.planning.references import References
from factory.planning.suites import check_suite
from factory.planning.values import check_values, templated
from factory.registry import Registry, TaskDefinition
from tasks.files.places import InBucket, InFolder

Kind: TypeAlias = Literal["defaults", "environment", "suite"]

FORMS = "configs/defaults.yaml, configs/environments/*.yaml and configs/suites/*.yaml"
"""The files of `configs/` that have a kind."""


def is_config(path: FilePath) -> bool:
    """Return whether `path` is inside of a project's `configs/`, or that folder itself."""
    return _parts(path)[:1] == ("configs",)


def kind_of(path: FilePath) -> Kind | None:
    """Return what a file of `configs/` declares, or None if nothing reads it."""
    if path.suffix != ".yaml":
        return None
    parts = _parts(path)
    if parts == ("configs", "defaults.yaml"):
        return "defaults"
    return _FOLDERS.get(parts[:-1])


_FOLDERS: Mapping[tuple[str, ...], Kind] = {("configs", "environments"): "environment", ("configs", "suites"): "suite"}


def _parts(path: FilePath) -> tuple[str, ...]:
    return path.absolute().relative_to(find_root(path)).parts


def configs_below(folder: FilePath) -> list[FilePath]:
    """Return the files of `configs/` that have a kind, in `folder` and below it."""
    return sorted(path for path in folder.rglob("*.yaml") if is_config(path) and kind_of(path))


def check_config(path: FilePath, registry: Registry, environment: str | None = None) -> Report:
    """Return a report on a file of `configs/` that has a kind."""
    root, kind = find_root(path), kind_of(path)
    if kind == "suite":
        project = load_project(root, registry, environment)
        read = project.suite(path.stem)
        assert read is not None
        spec, of_file = read
        report = Report(of_file.document, list(of_file.diagnostics))
        if of_file.document.root is not None:
            check_suite(spec, report, References({}, registry, functions=project.functions))
        return report
    project = load_project(root, registry, path.stem if kind == "environment" else None)
    layer, report = read_layer(path, project.shown(path.absolute()), registry)
    for where, problem in _problems(layer, project, registry):
        report.add_problem(problem, where)
    return report


def _problems(layer: Layer, project: Project, registry: Registry) -> Iterator[tuple[Path, Problem]]:
    for name, place in layer.places.items():
        form = InBucket if place.keys() & {"bucket", "connection"} else InFolder
        for problem in check_values(TypeAdapter(form).validate_json, dict(place), {}, f'the place "{name}"'):
            yield ("places", name), problem
    for task, arguments in layer.arguments.items():
        for name, value in arguments.items():
            for problem in _of_argument(task, name, value, project, registry):
                yield ("with", task), problem


def _of_argument(task: str, name: str, value: Value, project: Project, registry: Registry) -> list[Problem]:
    """Return what is wrong with a default, for the first task that refuses it."""
    takers = (one for one in registry if task in (EVERY_TASK, one.name) and name in one.parameters)
    found = (list(_of_task(taker, name, value, project)) for taker in takers)
    return next(filter(None, found), [])


def _of_task(definition: TaskDefinition, name: str, value: Value, project: Project) -> Iterator[Problem]:
    if name in definition.locations and isinstance(value, str):
        if value not in project.places:
            hint = partial(did_you_mean, value, project.places, "places")
            yield Problem("unknown-place", f'there is no place "{value}" in configs/', hint, (name,))
        return
    if name in definition.suites:
        if not isinstance(value, str):
            yield Problem("wrong-type", f"{name} should be the name of a suite", path=(name,))
        return
    unknown = {path for path, _ in templated({name: value})}
    validate = definition.arguments.model_validate_json
    for problem in check_values(validate, {name: value}, {}, f'"{definition.name}"'):
        is_missing = problem.code == "missing-argument" and not problem.path
        if not is_missing and not any(path[: len(problem.path)] == problem.path for path in unknown):
            yield problem
