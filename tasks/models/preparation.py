"""The rows that a classifier is fitted on: checked, split, and turned into vectors, all inside Spark.

Knows the columns that a step declares and what can be wrong with them; knows nothing about classifiers or MLflow. The
driver sees one row of statistics for each part of the split and the levels of each text column, never the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from tasks.contract import DataColumn, DataFile, DataRejected, MissingResource, Model, PermanentError
from tasks.names import nearest

if TYPE_CHECKING:
    from logging import Logger

    from pyspark.ml.base import Transformer
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, Row
    from pyspark.sql.types import DataType

KEY, LABEL, HELD_OUT, VECTOR = "_key", "_label", "_held_out", "_features"
MAX_LEVELS = 50
"""How many of a column's most frequent levels count separately; all others, new ones too, count as one."""

_PARTITION_VALUES = 8_000_000
"""Feature values in a partition: with fewer, starting a Spark task takes longer than running it."""

_RESERVED = {KEY, LABEL, HELD_OUT, VECTOR, "probability", "prediction"}
_WHOLE = ("tinyint", "smallint", "int", "bigint")
_NUMERIC = (*_WHOLE, "float", "double", "decimal", "boolean")
_CATEGORICAL = (*_WHOLE, "string", "boolean")

FeatureKind = Literal["numeric", "categorical"]
InputType = Literal["long", "double", "boolean", "string"]


class Features(Model):
    """The columns that a prediction uses: numbers, and texts or codes that are only compared for equality."""

    numeric: list[DataColumn] = Field(default=[])
    categorical: list[DataColumn] = Field(default=[])

    @model_validator(mode="after")
    def _are_some_and_distinct(self) -> Self:
        names = [*self.numeric, *self.categorical]
        if not names:
            raise ValueError("name at least one column, numeric or categorical")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is named twice; a column is one feature, numeric or categorical")
        if taken := sorted(_RESERVED.intersection(names)):
            raise ValueError(f"{taken[0]} is the name of an output; rename the column")
        return self


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of which file are used, and how the rows are split."""

    file: DataFile
    key: str
    label: str
    features: Features
    holdout: float
    seed: int

    @property
    def columns(self) -> dict[str, FeatureKind]:
        """The features with their kinds, in the order of the vector."""
        numeric: dict[str, FeatureKind] = dict.fromkeys(self.features.numeric, "numeric")
        return numeric | dict.fromkeys(self.features.categorical, "categorical")


@dataclass(frozen=True, slots=True)
class Part:
    """The counts for the training rows, or for the holdout."""

    rows: int
    positives: int
    known: Mapping[str, int]
    """Values of each feature that are not null."""
    mean: Mapping[str, float]
    variance: Mapping[str, float]
    """Of the known values, divided by their number."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The counts for all rows."""

    train: Part
    held_out: Part
    digest: str
    """The same for the same rows and columns, in any order and partitioning."""

    @property
    def rows(self) -> int:
        """All rows."""
        return self.train.rows + self.held_out.rows


@dataclass(frozen=True, slots=True)
class Input:
    """A column, and how its values become numbers."""

    name: str
    kind: FeatureKind
    type: InputType
    nullable: bool
    mean: float = 0.0
    scale: float = 1.0
    levels: tuple[str, ...] = ()
    background: tuple[float, ...] = (0.0,)
    """For each number that the column becomes, its mean over the training rows."""

    @property
    def width(self) -> int:
        """How many numbers the column becomes."""
        return 1 if self.kind == "numeric" else len(self.levels) + 1


def checked_columns(frame: DataFrame, layout: Layout) -> None:
    """Raise MissingResource or PermanentError unless the file has the columns, with suitable types."""
    types = {field.name: field.dataType for field in frame.schema.fields}
    for name in (layout.key, layout.label, *layout.columns):
        if name not in types:
            close = nearest(name, types)
            hint = f"did you mean {close!r}? " if close else ""
            raise MissingResource("column", name, layout.file, f"{hint}It has {', '.join(types)}")
    for name in (layout.key, layout.label):
        if name in layout.columns:
            used = "key" if name == layout.key else "label"
            raise PermanentError(f"column {name!r} is both the {used} and a feature; remove it from `features`")
    _check_type(layout.key, types[layout.key], _CATEGORICAL, "the key is text or an integer")
    _check_type(layout.label, types[layout.label], _NUMERIC, "the label is 0 or 1")
    for name in layout.features.numeric:
        _check_type(name, types[name], _NUMERIC, "a numeric feature is a number; list it under `categorical`")
    for name in layout.features.categorical:
        _check_type(name, types[name], _CATEGORICAL, "a categorical feature is text or a code; list it under `numeric`")


def _check_type(name: str, kind: DataType, allowed: tuple[str, ...], expected: str) -> None:
    if kind.simpleString().partition("(")[0] not in allowed:
        problem = f"column {name!r} is of type {kind.simpleString()}, but {expected}"
        raise PermanentError(f"{problem}, or convert it in the step that writes it")


def split_rows(frame: DataFrame, layout: Layout) -> DataFrame:
    """Return key, label, features and the side of the split of each row, in at most as many partitions as cores.

    A hash of key and seed decides which rows are held out: the order of the rows and their partitions do not matter.
    """
    from pyspark.sql import functions as sql

    features = [_value(name, kind).alias(name) for name, kind in layout.columns.items()]
    key, label = sql.col(layout.key).cast("string").alias(KEY), sql.col(layout.label).cast("double").alias(LABEL)
    rows = frame.select(key, label, sampled(layout.key, layout.seed, layout.holdout).alias(HELD_OUT), *features)
    filled = math.ceil(frame.count() * len(features) / _PARTITION_VALUES)
    wanted = max(1, min(filled, frame.sparkSession.sparkContext.defaultParallelism))
    return rows.coalesce(wanted) if rows.rdd.getNumPartitions() >= wanted else rows.repartition(wanted, KEY)


def sampled(key: str, seed: int, share: float, purpose: str = "split") -> SparkColumn:
    """Return a condition met by `share` of the keys, always the same ones; another `purpose` draws again."""
    from pyspark.sql import functions as sql

    hashed = sql.xxhash64(sql.col(key).cast("string"), sql.lit(seed).cast("long"), sql.lit(purpose))
    return hashed.bitwiseAND(sql.lit(2**53 - 1)) / sql.lit(float(2**53)) < sql.lit(share)


def _value(name: str, kind: FeatureKind) -> SparkColumn:
    from pyspark.sql import functions as sql

    column = sql.col(name)
    return column.cast("string") if kind == "categorical" else sql.nanvl(column.cast("double"), sql.lit(None))


def profiled(rows: DataFrame, layout: Layout, log: Logger) -> Profile:
    """Count the rows, and raise DataRejected if no classifier could learn from them."""
    counted = {bool(row[HELD_OUT]): row for row in rows.groupBy(HELD_OUT).agg(*_counts(layout)).collect()}
    if not counted:
        raise DataRejected(f"{layout.file} has no rows; look at the step that writes it")
    numbers = _numbers(rows, layout.features.numeric)
    _check_rows(list(counted.values()), layout)
    _check_numbers(numbers, layout)
    parts = {side: _part(counted.get(side), numbers.get(side, {}), layout) for side in (False, True)}
    _check_keys(rows, layout)
    profile = Profile(parts[False], parts[True], _digest(list(counted.values())))
    _check_labels(profile, layout)
    _check_features(profile, layout, log)
    return profile


def _counts(layout: Layout) -> Iterator[SparkColumn]:
    from pyspark.sql import functions as sql

    label, every = sql.col(LABEL), [KEY, LABEL, *sorted(layout.columns)]
    yield sql.count(sql.lit(1)).alias("rows")
    yield sql.count_if(label.isNull() | ~label.isin(0.0, 1.0)).alias("odd_labels")
    yield sql.min(sql.when(~label.isin(0.0, 1.0), label)).alias("odd_label")
    yield sql.count_if(sql.col(KEY).isNull()).alias("no_key")
    yield sql.count_if(label == 1.0).alias("positives")
    for number in (0, 1):
        yield sql.bit_xor(sql.xxhash64(sql.lit(number), *every)).alias(f"digest_{number}")
    for position, name in enumerate(layout.features.categorical):
        yield sql.count(name).alias(f"known_{position}")


def _numbers(rows: DataFrame, names: list[str]) -> Mapping[bool, Mapping[str, Row]]:
    """Return, for each side of the split that has rows, `known`, `mean`, `variance` and `largest` of each column.

    The columns are stacked into one: generating code for hundreds of aggregates takes Spark longer than running it, and
    the code is too long to be compiled.
    """
    from pyspark.sql import functions as sql

    if not names:
        return {}
    value = sql.col("value")
    cells = rows.select(HELD_OUT, sql.posexplode(sql.array(*names)).alias("position", "value"))
    counted = cells.groupBy(HELD_OUT, "position").agg(
        sql.count(value).alias("known"),
        sql.avg(value).alias("mean"),
        sql.var_pop(value).alias("variance"),
        sql.max(sql.abs(value)).alias("largest"),
    )
    sides: dict[bool, dict[str, Row]] = {}
    for row in counted.collect():
        sides.setdefault(bool(row[HELD_OUT]), {})[names[row["position"]]] = row
    return sides


def _check_rows(counted: list[Row], layout: Layout) -> None:
    if missing := sum(row["no_key"] for row in counted):
        raise DataRejected(f"{layout.file}: {missing:,} rows have no {layout.key!r}, the key")
    if odd := sum(row["odd_labels"] for row in counted):
        values = [f"{row['odd_label']:g}" for row in counted if row["odd_label"] is not None]
        example = f"such as {values[0]}" if values else "all of them null"
        raise DataRejected(f"{layout.file}: {odd:,} values of the label {layout.label!r} are not 0 or 1, {example}")


def _check_numbers(numbers: Mapping[bool, Mapping[str, Row]], layout: Layout) -> None:
    for name in layout.features.numeric:
        if any(math.isinf(side[name]["largest"] or 0) for side in numbers.values()):
            raise DataRejected(f"{layout.file}: column {name!r} has an infinite number; guard its division by zero")


def _part(row: Row | None, numbers: Mapping[str, Row], layout: Layout) -> Part:
    if row is None:
        return Part(0, 0, dict.fromkeys(layout.columns, 0), {}, {})
    known = {name: number["known"] for name, number in numbers.items()}
    known |= {name: row[f"known_{position}"] for position, name in enumerate(layout.features.categorical)}
    return Part(
        rows=row["rows"],
        positives=row["positives"],
        known=known,
        mean={name: number["mean"] for name, number in numbers.items() if number["known"]},
        variance={name: number["variance"] for name, number in numbers.items() if number["known"]},
    )


def _digest(counted: list[Row]) -> str:
    halves = []
    for number in (0, 1):
        mixed = 0
        for row in counted:
            mixed ^= row[f"digest_{number}"]
        halves.append(f"{mixed & (2**64 - 1):016x}")
    return "".join(halves)


def _check_keys(rows: DataFrame, layout: Layout) -> None:
    from pyspark.sql import functions as sql

    twice = rows.groupBy(KEY).count().where("count > 1")
    row = twice.agg(sql.count(sql.lit(1)).alias("keys"), sql.min(KEY).alias("example")).first()
    if row is not None and row["keys"]:
        problem = f"{row['keys']:,} values of the key {layout.key!r} occur more than once, such as {row['example']}"
        raise DataRejected(f"{layout.file}: {problem}; the split would put copies on both sides")


def _check_labels(profile: Profile, layout: Layout) -> None:
    positives = profile.train.positives + profile.held_out.positives
    if positives in (0, profile.rows):
        only = 1 if positives else 0
        raise DataRejected(
            f"{layout.file}: the label {layout.label!r} is {only} in all {profile.rows:,} rows; two classes are needed"
        )
    for part, name in ((profile.train, "training rows"), (profile.held_out, "rows held out")):
        if part.positives in (0, part.rows):
            problem = f"of {part.rows:,} {name}, {part.positives:,} have the label {layout.label!r} 1"
            raise DataRejected(f"{layout.file}: {problem}; each side needs both classes: more rows, or another `seed`")


def _check_features(profile: Profile, layout: Layout, log: Logger) -> None:
    if profile.train.rows <= len(layout.columns):
        problem = f"{profile.train.rows:,} training rows for {len(layout.columns)} features"
        raise DataRejected(f"{layout.file}: {problem}; there must be more rows than features")
    for name in layout.columns:
        if not profile.train.known[name]:
            raise DataRejected(
                f"{layout.file}: column {name!r} is null in all {profile.train.rows:,} training rows; "
                "fix the step that writes it, or remove it from `features`"
            )
    if constant := [name for name, variance in profile.train.variance.items() if variance == 0]:
        log.warning("%s: always the same value in %s; a model learns nothing from it", layout.file, ", ".join(constant))


def fitted_inputs(frame: DataFrame, rows: DataFrame, layout: Layout, profile: Profile) -> list[Input]:
    """Return how each column becomes numbers, learned from the training rows only; raise DataRejected."""
    levels = _levels(rows, layout)
    types = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    inputs = [_input(name, kind, types[name], profile, levels) for name, kind in layout.columns.items()]
    width = sum(column.width for column in inputs)
    if profile.train.rows <= width:
        problem = f"{profile.train.rows:,} training rows for {width} features, counting each level of a text"
        raise DataRejected(f"{layout.file}: {problem}; there must be more rows than features")
    return inputs


def _levels(rows: DataFrame, layout: Layout) -> dict[str, dict[str, int]]:
    """Return the most frequent levels of each text column with their counts, in one job."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    names = layout.features.categorical
    if not names:
        return {}
    cells = sql.explode(sql.array(*[sql.struct(sql.lit(n).alias("name"), sql.col(n).alias("level")) for n in names]))
    train = rows.where(~sql.col(HELD_OUT)).select(cells.alias("cell")).select("cell.*")
    counted = train.where("level IS NOT NULL").groupBy("name", "level").count()
    frequent = Window.partitionBy("name").orderBy(sql.desc("count"), "level")
    kept = counted.withColumn("place", sql.row_number().over(frequent)).where(sql.col("place") <= MAX_LEVELS)
    levels: dict[str, dict[str, int]] = {name: {} for name in names}
    for row in kept.orderBy("name", "level").collect():
        levels[row["name"]][row["level"]] = row["count"]
    return levels


def _input(
    name: str, kind: FeatureKind, spark: str, profile: Profile, levels: Mapping[str, Mapping[str, int]]
) -> Input:
    train = profile.train
    nullable = train.known[name] + profile.held_out.known[name] < profile.rows
    form = _input_type(kind, spark, nullable=nullable)
    if kind == "numeric":
        # Nulls have become the mean, and add nothing to the sum of squares.
        scale = math.sqrt(train.variance[name] * train.known[name] / (train.rows - 1)) or 1.0
        return Input(name, kind, form, nullable, train.mean[name], scale)
    shares = [count / train.rows for count in levels[name].values()]
    background = (*shares, 1 - math.fsum(shares))
    return Input(name, kind, form, nullable, levels=tuple(levels[name]), background=background)


def _input_type(kind: FeatureKind, spark: str, *, nullable: bool) -> InputType:
    """Return the type in a model's signature: pandas has no integers or booleans with gaps."""
    if nullable or spark not in (*_WHOLE, "boolean"):
        return "double" if kind == "numeric" else "string"
    return "boolean" if spark == "boolean" else "long"


def vector_stages(inputs: list[Input]) -> list[Transformer]:
    """Return the stages that add the vector VECTOR to rows of the input columns; they can be saved with a model."""
    from pyspark.ml.feature import SQLTransformer, VectorAssembler

    numbers = [expression for column in inputs for expression in _expressions(column)]
    names = [f"{VECTOR}_{position}" for position in range(len(numbers))]
    selected = ", ".join(f"{number} AS {name}" for number, name in zip(numbers, names, strict=True))
    return [
        SQLTransformer(statement=f"SELECT *, {selected} FROM __THIS__"),  # noqa: S608  our own names and literals
        VectorAssembler(inputCols=names, outputCol=VECTOR),
    ]


def _expressions(column: Input) -> Iterator[str]:
    """Yield the SQL of each number that a column becomes: the same operations as in `served/scorer.py`."""
    if column.kind == "numeric":
        value = f"nanvl(CAST(`{column.name}` AS DOUBLE), NULL)"
        yield f"coalesce(({value} - ({column.mean!r}D)) / ({column.scale!r}D), 0D)"
        return
    text, levels = f"CAST(`{column.name}` AS STRING)", [_literal(level) for level in column.levels]
    for level in levels:
        yield f"CASE WHEN {text} = {level} THEN 1D ELSE 0D END"
    yield f"CASE WHEN {text} IN ({', '.join(levels)}) THEN 0D ELSE 1D END"


def _literal(level: str) -> str:
    """Return SQL for a text, in hex digits: quotes in it cannot reach the parser."""
    return f"decode(X'{level.encode().hex()}', 'UTF-8')"


def assembled(rows: DataFrame, stages: list[Transformer]) -> DataFrame:
    """Return label, side of the split and vector of each row."""
    for stage in stages:
        rows = stage.transform(rows)
    return rows.select(LABEL, HELD_OUT, VECTOR)
