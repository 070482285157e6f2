"""A validation for people to read: its results as JSON, and Data Docs, in a bucket.

Knows the library's page renderers and where objects go. The pages are self-contained: they work without the internet
and can be downloaded. Each try has its own addresses; those of the run lead to the newest try.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.quality.details import plain
from tasks.quality.on_postgres.conditions import can_quarantine
from tasks.services.objects import bucket_errors, object_store

if TYPE_CHECKING:
    from tasks.contract import Run
    from tasks.quality.suites import Suite
    from tasks.quality.verdicts import Outcome, Verdict

_PAGES = Path(__file__).parent / "pages"
_SUITE_LINK = re.compile(r'href="(\.\./)+expectations/[^"]*"')
"""The library's link from a result to its suite: a page in the tree that it would write."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where the objects of a try are."""

    result: str
    data_docs: str


def publish(verdict: Verdict, suite: Suite, run: Run, *, connection: str, bucket: str) -> Links:
    """Upload the results and Data Docs of a try, and make them those of its run and suite.

    Raises MissingResource if the bucket does not exist.
    """
    place = f"{_safe(suite.name)}/{run_key(run)}"
    latest = f"data_docs/{place}"
    result, data_docs = f"validations/{place}/{run.attempt}.json", f"{latest}/{run.attempt}"
    objects = {f"{data_docs}/{name}": page for name, page in pages(verdict, suite, run).items()}
    objects[result] = objects[f"validations/{place}.json"] = _as_json(verdict.results)
    objects[f"{latest}/index.html"] = _leading_to(f"{run.attempt}/index.html", suite, run)
    with bucket_errors(connection, bucket):
        client = object_store(connection)
        for key, text in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=text.encode(), ContentType=_content_type(key))
    return Links(f"s3://{bucket}/{result}", f"s3://{bucket}/{data_docs}/index.html")


def _leading_to(address: str, suite: Suite, run: Run) -> str:
    """Return the page of a run and suite, which opens that of the newest try."""
    title, told = escape(f"{suite.name} · Data Docs"), escape(f"try {run.try_number} of {run.task_id}, {run.run_id}")
    head = f'<meta charset="UTF-8"><meta http-equiv="refresh" content="0; url={address}"><title>{title}</title>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body><a href="{address}">{told}</a></body></html>\n'


def run_key(run: Run) -> str:
    """Return a name for a run that is safe in a key, unique, and the same for each try."""
    digest = hashlib.sha256(json.dumps([run.dag_id, run.run_id]).encode()).hexdigest()[:8]
    return f"{_safe(run.dag_id)[:80]}__{_safe(run.run_id)[:80]}-{digest}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".") or "-"


def _content_type(key: str) -> str:
    return "text/html; charset=utf-8" if key.endswith(".html") else "application/json"


def _as_json(results: Any) -> str:
    return json.dumps(plain(results.to_json_dict()), indent=1, ensure_ascii=False, allow_nan=False)


def pages(verdict: Verdict, suite: Suite, run: Run) -> dict[str, str]:
    """Return the pages of Data Docs by name; they link to each other."""
    from great_expectations.core import ExpectationSuite
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import page_renderer

    results = _inert(verdict.results)
    results.meta["run_id"] = RunIdentifier(_hidden(run.run_id), dt.datetime.combine(run.date, dt.time(), dt.UTC))
    batch = {"table": suite.batch.table, "where": suite.batch.where or "", "rows": verdict.rows}
    results.meta["batch_spec"] = _hidden(batch)
    for outcome, answer in zip(verdict.outcomes, results.results, strict=True):
        answer.result = answer.result or _implied(outcome, verdict.rows)
    asked = [answer.expectation_config.to_domain_obj() for answer in results.results]
    of_results: Any = page_renderer.ValidationResultsPageRenderer()
    of_suite: Any = page_renderer.ExpectationSuitePageRenderer()
    documents = {
        "index.html": of_results.render(results),
        "expectations.html": of_suite.render(ExpectationSuite(results.suite_name, expectations=asked)),
    }
    return {name: _page(name, document, run) for name, document in documents.items()}


@cache
def page_view() -> Any:
    """Return the library's view with its templates compiled, which takes longer than rendering the pages."""
    from great_expectations.render.view.view import DefaultJinjaPageView

    view: Any = DefaultJinjaPageView(custom_views_directory=str(_PAGES))
    for name in view.env.list_templates(extensions=["j2"]):
        view.env.get_template(name)
    return view


def _implied(outcome: Outcome, rows: int) -> dict[str, Any]:
    """Return the counts of a rule about rows that no row breaks: the library was asked for yes or no only."""
    if not can_quarantine(outcome.expectation) or outcome.expectation.arguments.get("mostly", 1) != 1:
        return {}
    return {"element_count": rows, "unexpected_count": 0, "unexpected_percent": 0.0}


def _page(name: str, document: Any, run: Run) -> str:
    shown = {"dag_id": run.dag_id, "run_id": run.run_id, "task_id": run.task_id, "try_number": run.try_number}
    html: str = page_view().render(document, "data_docs.j2", page=name, **shown)
    return _shown_as_text(_SUITE_LINK.sub('href="expectations.html"', html))


# --- Data as text -----------------------------------------------------------------------------------------------------

_SIGNS = {"<": "\ufdd0", ">": "\ufdd1", "&": "\ufdd2", '"': "\ufdd3", "'": "\ufdd4"}
"""The signs that mean something in HTML, each with a code point that is no character and stands for it meanwhile."""
_HIDING = str.maketrans(_SIGNS | dict.fromkeys(_SIGNS.values(), "\ufffd"))
_HIDDEN = {form: sign for sign, stand_in in _SIGNS.items() for form in (stand_in, ascii(stand_in)[1:-1])}
"""Each stand-in, and its form where the library shows a list or a mapping as Python does, with the sign."""
_STAND_IN = re.compile("|".join(map(re.escape, _HIDDEN)))
_SCRIPT = re.compile(r"(<script\b.*?</script>)", re.DOTALL)


def _hidden(value: Any) -> Any:
    """Return a value in which no text means anything in HTML: the library writes some of them as they are."""
    if isinstance(value, str):
        return value.translate(_HIDING)
    if isinstance(value, dict):
        return {_hidden(name): _hidden(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_hidden(part) for part in value)
    return value


def _shown_as_text(html: str) -> str:
    """Return a page in which what was hidden is shown, as text and as parts of texts in a script."""
    parts = _SCRIPT.split(html)  # the data in it cannot begin or end a script any more
    return "".join(_STAND_IN.sub(_in_script if place % 2 else _in_html, part) for place, part in enumerate(parts))


def _in_html(stand_in: re.Match[str]) -> str:
    return escape(_HIDDEN[stand_in[0]])


def _in_script(stand_in: re.Match[str]) -> str:
    return f"\\u{ord(_HIDDEN[stand_in[0]]):04x}"


def _inert(found: Any) -> Any:
    """Return a copy of the library's results in which no name or value means anything in HTML."""
    results = copy.deepcopy(found)
    results.suite_name, results.meta = _hidden(results.suite_name), _hidden(results.meta)
    for answer in results.results:
        asked = answer.expectation_config
        answer.result, answer.meta, answer.exception_info = map(
            _hidden, (answer.result, answer.meta, answer.exception_info)
        )
        asked.kwargs, asked.meta, asked.description = map(_hidden, (asked.kwargs, asked.meta, asked.description))
    return results
