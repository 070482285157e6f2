"""What Spark itself reads in a query, before it runs.

`tasks.spark.query_text` judges the same at lint with another parser; where the two read differently, Spark is right.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from tasks.contract import PermanentError
from tasks.spark.query_text import RUNNING_CODE

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


def run_query(session: SparkSession, file: str, text: str, values: dict[str, Any], views: Collection[str]) -> DataFrame:
    """Return the result of one query over `views`, the text of `file`; raise PermanentError for anything else.

    Spark runs a command as soon as it is given one, so the text is read first.
    """
    session_of_java: Any = session._jsparkSession  # noqa: SLF001  PySpark offers no parser
    plan = session_of_java.sessionState().sqlParser().parsePlan(text)
    for reason in _reasons(session, plan, {name.lower() for name in views}):
        raise PermanentError(f"configs/sql/{file} {reason}; SQL in configs/ reads the step's files and nothing else")
    return session.sql(text, args=values)


def _reasons(session: SparkSession, plan: Any, views: set[str]) -> Iterator[str]:
    from py4j.java_gateway import is_instance_of

    context: Any = session.sparkContext
    if is_instance_of(context._gateway, plan, f"{_PLANS}Command"):  # noqa: SLF001
        yield "is a command"
    parts = list(_parts(json.loads(plan.toJSON())))
    own = {part["identifier"]["name"].lower() for part in parts if part["class"] == f"{_PLANS}SubqueryAlias"}
    for part in parts:
        name = part["class"].rpartition(".")[2]
        if name in _REFUSED:
            yield _REFUSED[name]
        elif name == "UnresolvedFunction" and _names(part["nameParts"])[-1] in RUNNING_CODE:
            yield "calls a method of Java"
        elif name == "UnresolvedRelation" and not _is_known(_names(part["multipartIdentifier"]), views | own):
            yield f"reads {'.'.join(_names(part['multipartIdentifier']))}, which is not a view of the step"


def _is_known(names: list[str], known: set[str]) -> bool:
    return len(names) == 1 and names[0] in known


def _names(shown: str) -> list[str]:
    """Return the parts of a name, which Spark shows as `[a, b]`."""
    return [name.lower() for name in shown.removeprefix("[").removesuffix("]").split(", ")]


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every plan and expression in Spark's JSON."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
