"""The Production model: loaded once per version, run in this process, without Java."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stack.app.registered_models import Evidence, Registry, Release, Unusable
from stack.app.scoring import Explanation, Field, FieldKind

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.types import ColSpec

FRESH_SECONDS = 5.0
"""How long an answer from the registry is trusted."""
_KINDS: dict[str, FieldKind] = {
    "double": "number",
    "float": "number",
    "long": "integer",
    "integer": "integer",
    "boolean": "boolean",
    "string": "text",
}


@dataclass(frozen=True, slots=True)
class ProductionModel:
    """A loaded version, as a scorer."""

    release: Release
    model: Any
    """A `PyFuncModel`; MLflow leaves half of its methods untyped."""
    fields: tuple[Field, ...]

    @property
    def title(self) -> str:
        """Which model answers."""
        return f"{self.release.name}, version {self.release.version}"

    @property
    def threshold(self) -> float:
        """The minimum probability that counts as churn, as chosen in training."""
        return self.release.metrics.get("threshold", 0.5)

    def score(self, people: pd.DataFrame) -> pd.DataFrame:
        """Return the columns `probability` and `prediction` of each row; raise Unusable."""
        from mlflow.exceptions import MlflowException

        try:
            scores: pd.DataFrame = self.model.predict(self._typed(people))
        except (MlflowException, ValueError) as error:
            raise Unusable(f"{self.title}, refuses the values: {error}") from error
        return scores[["probability", "prediction"]].set_axis(people.index)

    def explain(self, person: pd.DataFrame) -> Explanation:
        """Return the SHAP values of one person."""
        scorer = self.model.unwrap_python_model()
        parts = scorer.contributions(self._typed(person)).iloc[0]
        contributions = {str(name): float(part) for name, part in parts.items()}
        return Explanation(float(scorer.base_value), contributions, getattr(scorer, "contribution_unit", "log-odds"))

    def _typed(self, people: pd.DataFrame) -> pd.DataFrame:
        """Return the columns with the types of the signature, which MLflow requires; missing values stay missing."""
        import pandas as pd

        wanted = {column.name: column.type.to_pandas() for column in self.model.metadata.get_input_schema()}
        whole = people.notna().all()
        return pd.DataFrame(
            {name: people[name].astype(kind) if whole[name] else people[name] for name, kind in wanted.items()}
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the registry found: a model, a problem, both (then the model is an earlier one), or neither."""

    model: ProductionModel | None = None
    problem: str | None = None


@dataclass(slots=True)
class Shelf:
    """Holds the Production model, and looks it up again when the last answer is no longer fresh.

    Shared by the app's sessions: while one of them loads a version, the others wait for it. A loaded model keeps
    answering while MLflow is down.
    """

    registry: Registry
    name: str
    fresh_seconds: float = FRESH_SECONDS
    clock: Callable[[], float] = time.monotonic
    _seen: Seen = field(default_factory=Seen)
    _looked_at: float | None = None
    _evidence: dict[str, Evidence] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> Seen:
        """Return the current Production model, and why the registry could not be asked, if it could not."""
        with self._lock:
            if self._looked_at is None or self.clock() - self._looked_at >= self.fresh_seconds:
                self._seen = self._ask()
                self._looked_at = self.clock()
            return self._seen

    def evidence(self, release: Release) -> Evidence:
        """Return what the training of a release recorded, fetched once; raise Unusable."""
        with self._lock:
            if release.run_id not in self._evidence:
                self._evidence = {release.run_id: self.registry.evidence(release)}
            return self._evidence[release.run_id]

    def _ask(self) -> Seen:
        before = self._seen.model
        try:
            release = self.registry.production(self.name)
            if release is None:
                return Seen()
            same = before is not None and before.release == release
            return Seen(before if same else _loaded(self.registry, release))
        except Unusable as problem:
            return Seen(before, str(problem))


def _loaded(registry: Registry, release: Release) -> ProductionModel:
    from mlflow import pyfunc

    try:
        with tempfile.TemporaryDirectory(prefix="churn-app-") as folder:
            files = registry.files(release, Path(folder))
            with registry.answering():
                model: Any = pyfunc.load_model(str(files))
            loaded = ProductionModel(release, model, _fields(model))
            _warm(loaded)
    except (ImportError, LookupError, AttributeError, TypeError, ValueError) as error:  # a package may be missing
        reason = f"{type(error).__name__}: {error}"
        raise Unusable(f"{release.name}, version {release.version}, cannot be loaded: {reason}") from error
    return loaded


def _warm(loaded: ProductionModel) -> None:
    """Score the model's own example: the first score takes longer than the others."""
    example = loaded.model.input_example
    if example is not None:
        loaded.score(example)
        loaded.explain(example.head(1))


def _fields(model: Any) -> tuple[Field, ...]:
    """Return what to ask for: the columns of the signature, with the example's values."""
    schema = model.metadata.get_input_schema()
    if schema is None or not schema.has_input_names():
        raise Unusable("the Production model has no signature with column names; train it again")
    example = model.input_example
    levels = getattr(model.unwrap_python_model(), "levels", {})
    return tuple(
        Field(
            name=column.name,
            kind=_kind(column),
            example=None if example is None else _plain(example[column.name].iloc[0]),
            levels=tuple(levels.get(column.name, ())) if _kind(column) == "text" else (),
            optional=not column.required,
        )
        for column in schema.inputs
    )


def _kind(column: ColSpec) -> FieldKind:
    kind = _KINDS.get(getattr(column.type, "name", str(column.type)))
    if kind is None:
        raise Unusable(
            f"the Production model asks for {column.name} of type {column.type}, which this page has no form for"
        )
    return kind


def _plain(value: Any) -> Any:
    """Return a value of a frame as a plain Python value, None if it is missing."""
    plain = value.item() if hasattr(value, "item") else value
    return None if plain is None or plain != plain else plain  # noqa: PLR0124 - NaN is not itself
