"""What Spark itself reads in a query, before it runs.

`tasks.spark.query_text` judges the same at lint with another parser; where the two read differently, Spark is right.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError
from tasks.spark.query_text import NOT_LISTED, RUNNING_CODE, harmless

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PLANS = "org.apache.spark.sql.catalyst.plans.logical."
_REFUSED = {
    "CompoundBody": "is a script",
    "ExpressionWithUnresolvedIdentifier": "makes a name of a text",
    "InsertIntoStatement": "writes a table",
    "PlanWithUnresolvedIdentifier": "makes a name of a text",
    "ScriptTransformation": "runs a program on the workers",
    "UnresolvedExecuteImmediate": "runs a text as SQL",
}
"""What no query of a step may do, by the names of Spark's plans."""
_CALLS = {"UnresolvedFunction": "nameParts", "UnresolvedTableValuedFunction": "name"}
"""Where Spark's plans have the name of a function."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of `configs/sql/`: its file and text, the values bound in it, and the functions it may call besides."""

    file: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)
    functions: frozenset[str] = frozenset()


def run_query(session: SparkSession, query: Query, views: Collection[str]) -> DataFrame:
    """Return the result of one query over `views`; raise PermanentError for anything else.

    Spark runs a command as soon as it is given one, so the text is read first.
    """
    session_of_java: Any = session._jsparkSession  # noqa: SLF001  PySpark offers no parser
    plan = session_of_java.sessionState().sqlParser().parsePlan(query.text)
    for reason in _reasons(session, plan, {name.lower() for name in views}, harmless() | query.functions):
        raise PermanentError(
            f"configs/sql/{query.file} {reason}; SQL in configs/ reads the step's files and nothing else"
        )
    return session.sql(query.text, args=dict(query.values))


def _reasons(session: SparkSession, plan: Any, views: set[str], functions: frozenset[str]) -> Iterator[str]:
    from py4j.java_gateway import is_instance_of

    context: Any = session.sparkContext
    if is_instance_of(context._gateway, plan, f"{_PLANS}Command"):  # noqa: SLF001
        yield "is a command"
    for name, part in _parts(plan):
        if name in _REFUSED:
            yield _REFUSED[name]
        elif name in _CALLS and (called := _names(part[_CALLS[name]])[-1]) not in functions:
            does = "a method of Java" if called in RUNNING_CODE else f'"{called}", {NOT_LISTED}'
            yield f"calls {does}"
    for name, part in _parts(_without_own_names(context, plan)):
        if name == "UnresolvedRelation" and _relation(part) not in views:
            yield f"reads {_relation(part)}, which is not a view of the step"


def _without_own_names(context: Any, plan: Any) -> Any:
    """Return the plan with the queries of WITH in place of their names, by Spark's own rule for where a name counts."""
    rules = context._jvm.org.apache.spark.sql.catalyst.analysis  # noqa: SLF001
    return rules.CTESubstitution.apply(plan)


def _relation(part: dict[str, Any]) -> str:
    return ".".join(_names(part["multipartIdentifier"]))


def _names(shown: str) -> list[str]:
    """Return the parts of a name, which Spark shows as `[a, b]`."""
    return [name.lower() for name in shown.removeprefix("[").removesuffix("]").split(", ")]


def _parts(plan: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every plan and expression in a plan, with the name of its class."""
    waiting = [json.loads(plan.toJSON())]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part["class"].rpartition(".")[2], part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
