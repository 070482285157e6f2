"""The contents of `configs/`: defaults, the values of one environment, suites, SQL files.

Knows the folder and the form of its YAML; the caller chooses the environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path as FilePath

from factory.language.arguments import DAG_ARGUMENTS
from factory.language.document import MAX_BYTES, Document, Value, content_of, read
from factory.language.errors import Diagnostic, did_you_mean
from factory.language.notices import Notices
from factory.language.reader import Airflow
from factory.language.report import Report
from factory.language.spec import SpecReader, SuiteSpec, parse_suite
from factory.language.variables import BadVariable, Variable, read_variable
from factory.registry import Registry

_KEYS = ("dag", "default_args", "functions", "notify", "places", "pools", "queues", "variables", "with")
EXTENSIONS = (".yaml", ".yml")
"""The file extensions of specs."""
ENVIRONMENT = "TASKFLOW_ENVIRONMENT"
"""The environment variable that names a file of configs/environments/."""
EVERY_TASK = "*"
"""The key below `with` in the defaults for arguments of every task that takes them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of defaults; a later layer wins over an earlier one."""

    document: Document
    dag: Airflow = field(default_factory=dict)
    default_args: Airflow = field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Defaults of `with`, by the name of the task."""
    queues: tuple[str, ...] | None = None
    """The queues that workers take tasks from, or None if the file does not list them."""
    pools: tuple[str, ...] | None = None
    """The pools that Airflow has, or None if the file does not list them."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    """Airflow's Variables that templates may read."""
    functions: tuple[str, ...] = ()
    """The SQL functions that specs may call besides Postgres' harmless ones."""
    places: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Folders and buckets that steps may name."""
    notify: Notices = field(default_factory=dict)
    """Whom every pipeline tells of the end of a run."""


@dataclass(frozen=True)
class Project:
    """A folder with `configs/` in it, read for one environment."""

    root: FilePath
    layers: tuple[Layer, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def configs(self) -> FilePath:
        """The folder of shared configuration."""
        return self.root / "configs"

    @property
    def queues(self) -> tuple[str, ...] | None:
        """The queues that a step may name, or None if any name is allowed."""
        return _last(layer.queues for layer in self.layers)

    @property
    def pools(self) -> tuple[str, ...] | None:
        """The pools that a step may name, or None if any name is allowed."""
        return _last(layer.pools for layer in self.layers)

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Airflow's Variables that templates may read; a later file declares over an earlier one."""
        return {name: one for layer in self.layers for name, one in layer.variables.items()}

    @cached_property
    def places(self) -> Mapping[str, Mapping[str, Value]]:
        """The folders and buckets that steps may name; a later file declares over an earlier one."""
        return {name: place for layer in self.layers for name, place in layer.places.items()}

    @cached_property
    def functions(self) -> frozenset[str]:
        """The SQL functions that specs may call besides Postgres' harmless ones."""
        return frozenset(name for layer in self.layers for name in layer.functions)

    def suite(self, name: str) -> tuple[SuiteSpec, Report] | None:
        """Return the suite in `configs/suites/<name>.yaml` with the report on it, or None if there is no such file."""
        path = self.configs / "suites" / f"{name}.yaml"
        if path.name != f"{name}.yaml" or not _is_file(path):
            return None
        return _read_suite(path, self.shown(path), name, _stamp(path))

    def suite_names(self) -> list[str]:
        """Return the names of the suites in `configs/suites/`."""
        return sorted(path.stem for path in (self.configs / "suites").glob("*.yaml"))

    def sql_files(self) -> list[str]:
        """Return the files below `configs/sql/`, as a step names them."""
        folder = self.configs / "sql"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.sql"))

    def sql_problem(self, name: str) -> str | None:
        """Return why a step cannot use a file of `configs/sql/`, or None; nothing outside of that folder is opened."""
        folder = self.configs / "sql"
        file = folder / name
        if "\0" in name or not file.resolve().is_relative_to(folder.resolve()) or not _is_file(file):
            return f"there is no file configs/sql/{name}"
        content = content_of(file)
        if len(content) > MAX_BYTES:
            return f"configs/sql/{name} is larger than {MAX_BYTES:,} bytes"
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            return f"configs/sql/{name} is not UTF-8 text: byte {error.start} cannot be read"
        return None

    def shown(self, path: FilePath) -> str:
        """Return `path` as reports show it."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)


def _last(listed: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    return next((names for names in reversed(list(listed)) if names is not None), None)


def is_spec(path: FilePath) -> bool:
    """Return whether `path` is a YAML file that declares a pipeline, not a pipeline's test or a file of `configs/`."""
    if path.suffix not in EXTENSIONS or path.stem.endswith(".test"):
        return False
    return path.absolute().relative_to(find_root(path)).parts[0] != "configs"


def specs_below(folder: FilePath) -> list[FilePath]:
    """Return every spec in `folder` and the folders below it."""
    return sorted(path for path in folder.rglob("*.y*ml") if is_spec(path))


def find_root(spec: FilePath) -> FilePath:
    """Return the folder of the project that a spec belongs to: the nearest one above it that contains `configs/`."""
    folders = spec.absolute().parents
    return next((folder for folder in folders if (folder / "configs").is_dir()), folders[0])


def load_project(root: FilePath, registry: Registry, environment: str | None = None) -> Project:
    """Read the defaults of `root`, overridden by those of `environment`; `registry` has the tasks they may name."""
    files = [root / "configs" / "defaults.yaml"]
    if environment:
        files.append(root / "configs" / "environments" / f"{environment}.yaml")
    return _load(root, tuple((file, _stamp(file)) for file in files), registry, environment)


def given_arguments(root: FilePath, registry: Registry) -> Mapping[str, frozenset[str]]:
    """Return the arguments that the defaults or an environment of `root` give, by the task that `with` names there."""
    environments = sorted(path.stem for path in (root / "configs" / "environments").glob("*.yaml"))
    given: dict[str, frozenset[str]] = {}
    for environment in (None, *environments):
        for layer in load_project(root, registry, environment).layers:
            for task, arguments in layer.arguments.items():
                given[task] = given.get(task, frozenset()) | set(arguments)
    return given


def _is_file(path: FilePath) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or that no file can have
        return False


Stamp = tuple[int, int] | None


def _stamp(file: FilePath) -> Stamp:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _load(
    root: FilePath, files: tuple[tuple[FilePath, Stamp], ...], registry: Registry, environment: str | None
) -> Project:
    layers: list[Layer] = []
    diagnostics: list[Diagnostic] = []
    for file, stamp in files:
        if stamp is None:
            diagnostics.extend(_missing_environment(file, root) if environment and file is files[-1][0] else [])
            continue
        layer, report = read_layer(file, file.relative_to(root).as_posix(), registry)
        layers.append(layer)
        diagnostics.extend(report.diagnostics)
    return Project(root, tuple(layers), tuple(diagnostics))


def _missing_environment(file: FilePath, root: FilePath) -> list[Diagnostic]:
    shown = file.relative_to(root).as_posix()
    known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml"))) or "none"
    document = Document(shown, [], None, None)
    return [
        document.diagnose("unknown-environment", (), f'there is no environment "{file.stem}"', f"environments: {known}")
    ]


def read_layer(file: FilePath, shown: str, registry: Registry) -> tuple[Layer, Report]:
    """Return a file of defaults and the report on it; an empty one sets nothing."""
    document, diagnostics = read(content_of(file), shown)
    report = Report(document, [one for one in diagnostics if one.code != "empty-file"])
    if document.root is None:
        return Layer(document), report
    reader = SpecReader(report)
    root = reader.mapping(document.value, ())
    reader.unknown_keys(root, (), _KEYS, {}, "the defaults")
    dag = reader.mapping(root.get("dag", {}), ("dag",))
    known = [name for name, argument in DAG_ARGUMENTS.items() if argument.kind not in ("code", "spec")]
    reader.unknown_keys(dag, ("dag",), known, DAG_ARGUMENTS, "the defaults of a DAG")
    layer = Layer(
        document,
        dag=reader.airflow(dag, ("dag",), DAG_ARGUMENTS),
        default_args=reader.default_args(root.get("default_args", {}), ("default_args",)),
        arguments={
            name: reader.mapping(one, ("with", name))
            for name, one in reader.mapping(root.get("with", {}), ("with",)).items()
        },
        queues=reader.names(root["queues"], ("queues",), "a queue") if "queues" in root else None,
        pools=reader.names(root["pools"], ("pools",), "a pool") if "pools" in root else None,
        variables=dict(_variables(reader.mapping(root.get("variables", {}), ("variables",)), report)),
        places={
            name: reader.mapping(one, ("places", name))
            for name, one in reader.mapping(root.get("places", {}), ("places",)).items()
        },
        functions=reader.names(root["functions"], ("functions",), "a function") if "functions" in root else (),
        notify=reader.notices(root.get("notify", {}), ("notify",)),
    )
    _check_arguments(report, layer, registry)
    reader.stray_dates()
    return layer, report


def _variables(declared: Mapping[str, Value], report: Report) -> Iterator[tuple[str, Variable]]:
    for name, value in declared.items():
        try:
            yield name, read_variable(name, value)
        except BadVariable as error:
            where = ("variables", name, error.key) if error.key else ("variables", name)
            report.add(error.code, where, str(error), error.hint)


def _check_arguments(report: Report, layer: Layer, registry: Registry) -> None:
    """Report defaults for tasks that do not exist, and for arguments that no task takes."""
    everywhere = {name for task in registry for name in task.parameters}
    for task, arguments in layer.arguments.items():
        if task != EVERY_TASK and task not in registry:
            hint = partial(did_you_mean, task, (EVERY_TASK, *registry.tasks), "tasks")
            report.add("unknown-task", ("with", task), f'there is no task "{task}"', hint, key=True)
            continue
        taken, whom = (everywhere, "any task") if task == EVERY_TASK else (registry[task].parameters, f'"{task}"')
        for name in arguments.keys() - set(taken):
            hint = partial(did_you_mean, name, taken, "arguments")
            message = f'"{name}" is not an argument of {whom}'
            report.add("unknown-argument", ("with", task, name), message, hint, key=True)


@lru_cache(maxsize=1024)
def _read_suite(file: FilePath, shown: str, name: str, _stamp: Stamp) -> tuple[SuiteSpec, Report]:
    document, diagnostics = read(content_of(file), shown)
    report = Report(document, list(diagnostics))
    if document.root is None:
        return SuiteSpec(name, (), {}, ()), report
    return parse_suite(report, name), report
