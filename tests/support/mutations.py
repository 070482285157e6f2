"""Wrong specs without end, each from a number: mutations of the values of real specs, and of the bytes of files."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from factory.language.arguments import DAG_ARGUMENTS, GROUP_ARGUMENTS, TASK_ARGUMENTS, Argument
from factory.language.document import Value, read
from factory.language.params import KEYS
from tests.support.fuzzed_expressions import expression, names_of

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"
PAGES = ("README.md", "docs/guide.md")

TEXTS = (
    "", " ", "\n", "a", "a b", "é", "ñandú", "名前", "😀", "\u202e", "\u2028", "\x85", "\x00", "\x07", "\x7f", "\ufeff",
    "\ud800",
    "{{", "}}", "{{ }}", "{{ params }}", "{{ params.x }}", "{{ steps.a.b }}", "{{ steps }}", "{{ run.date }}",
    "{{ run }}",
    "{{ 1 + 'a' }}", "{{ params[0] }}", "{{ -params.window_days }}", "{% if x %}", "{% raw %}", "{# #}",
    "{{ [1, {}] | first }}",
    "{{ 9 ** 9 ** 9 }}", "{{ '" + "a" * 2000 + "' | replace('a', '" + "b" * 2000 + "') }}", "{{ variables.region }}",
    "{{ ds }}", "{{ 1", "{{ '", "{{ " + "9" * 5_000 + " }}", "{{ [" + "1, " * 2000 + "] }}", "{{{{", "{{ {{ 1 }} }}",
    "{{ run.date | add_days(99999999999) }}", "{{ run.date | format('%') }}", "{{ 1 / 0 }}",
    "{{ 1 if 2 }}", "{{ run.date ~ params.window_days }}",
    "{{ " + "(" * 200 + "1" + ")" * 200 + " }}", "{{ " + "not " * 200 + "1 }}",
    "{batch}", "{batch:>3000000000}", "{batch.x}", "{0}", "{", "%s", "%(x)s", "SELECT * FROM {batch} WHERE a = 1",
    "'", '"', "--", "/*", "a'; DROP TABLE t; --",  "a" * 101, "a" * 300, "a" * 5_000, "a." * 200, "-" * 400,
    "../x", "/", ".", "..", "a/b", "a\\b", "C:\\", "x.md", "x.sql", "crypto/tables.sql", "s3://bucket/key", "x://",
    "airflow://x",
    "2026-01-01", "9999-12-31", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "10000-01-01",
    "30s", "0s", "99999999999999w", "9" * 400 + "w", "1.5h", "-5m", "1h 30m", "@daily", "@never", "* * * * *",
    "0 0 31 2 *",
    "0 0 * * 8", "*/0 * * * *", "0 0 1-99999999 * *", "0 0 L * *", "0 0 * * * * *", "R * * * *", "H H * * *",
    "* * * * mon#9",
    "UTC", "America/Buenos_Aires", "Mars/Olympus", "../UTC", "+03:00", "true", "null", "~", "yes", "1", "0x1F", "1e3",
    "all_success", "one_failed", "messages.log", "quality.validate", "postgres.merge", "postgres.run_sql", "int",
    "string",
    "steps", "params", "uses", "else", "__proto__", "__class__", "items", "keys", "self", "default", "$ref", "#", "*",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 60, 2**31, -(2**31) - 1, 2**63, 2**64, 10**25, -(10**30), 10**305, 0.5, -0.0, 1e-320, 1e308,
    float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], {"": 1}, [None], [1, "a", None], {"a": {"a": {"a": {}}}}, {"$ref": "#"},
    {"anyOf": "text"},
    {"type": ["integer", "null"]}, {"type": ["string", 5]}, {"enum": "abc"}, {"x": [1, 2, 3]}, ["a"] * 150,
    {"assets": ["a"]},
    {"assets": {"any": [{"all": ["a", "b"]}, "c"]}}, {"assets": [{"name": "a", "uri": "s3://b/c"}]},
    {"timetable": "CronTriggerTimetable"},
    {"timetable": "DeltaTriggerTimetable", "delta": "1h"},
    {"timetable": "CronDataIntervalTimetable", "expression": "0 0 * * *"},
    {"uses": "messages.log", "with": {"message": "hello"}},
    {"steps": {"a": {"uses": "messages.log", "with": {"message": "hello"}}}},
    {"branch": [{"if": "{{ true }}", "then": "a"}, {"else": "b"}]}, {"steps": {}}, {"branch": []},
    {"type": "integer", "default": 1},
)  # fmt: skip
KEYS_OF_SPECS = (
    "steps", "with", "needs", "expand", "branch", "params", "suites", "schedule", "variables", "functions", "pools",
    "queues",
)  # fmt: skip
BYTES = (
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\t", b"\r", b"\r\n", b"\n", b"\x85",
    b"\xe2\x80\xa8", b"\x0c", b"\x1b",
    b"[", b"]", b"{", b"}", b":", b": ", b"- ", b"? ", b"&a ", b"*a ", b"!!python/object:os.system ", b"!x ",
    b"!<x> ", b"|", b">", b"|9\n", b"%YAML 1.1\n",
    b"---\n", b"...\n", b"#", b"'", b'"', b"\\", b"`", b"@", b",", b"<<: ", b"[" * 60, b"{" * 60, b"- " * 60, b"{{ ",
    b" }}", b"{% ", b"9" * 5_000, b"  ", b"    ",
    b"&x [*x]", b"&x {a: *x}", b"012", b"12:30", b"0x1F", b".nan", b"1_000", b"2026-01-01", b"no", b"~",
    b"\xf0\x9f\x98\x80", b'"\\uD800"', b"(" * 3000, b"CASE " * 2000, b"%(x)s", b"%", b":x", b"$1", b";", b"--", b"/*",
    b"''", b"$$", b"SELECT ", b"UNION ALL ", b"NOT " * 2000, b"pg_sleep(9)", b'"\\0"', b'"\\x85"',
)  # fmt: skip


PLAIN = b"""dag_id: plain
schedule: "@daily"
start_date: 2026-01-01
default_args: {owner: me, retries: 1}
params:
  text: {type: string, default: a, maxLength: 5}
  number: {type: integer, default: 1, minimum: 0}
  list: {type: array, default: [a], items: {type: string}}
steps:
  first: {uses: messages.log, with: {message: "{{ params.text | upper }} {{ run.date | add_days(-1) }}"}}
  group:
    tooltip: inside
    needs: first
    steps:
      each: {uses: messages.log, expand: {message: "{{ params.list }}"}}
      some: {uses: messages.log, needs: each, expand: {message: [a, b]}, retries: 2, retry_delay: 5m}
  choose:
    needs: group
    branch: [{if: "{{ params.number > 0 }}", then: yes_step}, {else: no_step}]
  yes_step: {uses: messages.log, with: {message: "{{ steps.first.message | default('none') }}"}, outlets: [made]}
  no_step: {uses: messages.log, with: {message: "no"}, pool: default_pool}
  last: {uses: messages.log, needs: [yes_step, no_step], trigger_rule: none_failed_min_one_success, with: {message: a}}
"""
"""A spec of plain steps: most of its mutations are right, so their DAGs are built."""


@dataclass(frozen=True, slots=True)
class Case:
    """A spec, and the file of `configs/` that it is read with, if that is what is mutated."""

    spec: bytes
    configs: Path
    file: str = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Origin:
    """A right file to begin with: a spec, or a spec and a file of its `configs/`."""

    spec: bytes
    configs: Path
    file: str = ""

    @property
    def content(self) -> bytes:
        """What is mutated."""
        return (self.configs / self.file).read_bytes() if self.file else self.spec

    def case(self, content: bytes) -> Case:
        """Return the case in which the file has this content."""
        return Case(self.spec, self.configs, self.file, content) if self.file else Case(content, self.configs)


@cache
def origins() -> tuple[Origin, ...]:
    """Return the shipped specs, the examples of the documentation, the cases, and files of `configs/`."""
    shipped = [Origin(path.read_bytes(), ROOT / "configs") for path in sorted((ROOT / "pipelines").glob("*[!t].yaml"))]
    shipped = [one for one in shipped if b"dag_id" in one.spec]
    written = [
        text for page in PAGES for text in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    ]
    examples = [Origin(text.encode(), ROOT / "configs") for text in written]
    cases = [Origin(path.read_bytes(), CASES / "configs") for path in sorted(CASES.glob("*.yaml"))]
    small = [one for one in cases if len(one.spec) < 20_000]
    suites = sorted((ROOT / "configs" / "suites").glob("*.yaml"))
    files = ["defaults.yaml", *(f"suites/{path.name}" for path in suites)]
    configs = [Origin(one.spec, ROOT / "configs", file) for one in shipped for file in files]
    shared = Origin((CASES / "unknown_suite.yaml").read_bytes(), CASES / "configs", "defaults.yaml")
    declaring = Origin(PLAIN, CASES / "configs", "defaults.yaml")
    queries = [
        Origin(spec, folder, path.relative_to(folder).as_posix())
        for spec, folder in ((one.spec, one.configs) for one in (*shipped, *cases))
        for path in sorted((folder / "sql").rglob("*.sql"))
        if path.relative_to(folder / "sql").as_posix().encode() in spec
    ]
    good = Origin((CASES / "good.yaml").read_bytes(), CASES / "configs")
    plain = Origin(PLAIN, ROOT / "configs")
    return (
        *shipped * 4,
        *examples,
        *small,
        *configs,
        shared,
        *(declaring,) * 10,
        *queries,
        *(good,) * 10,
        *(plain,) * 60,
    )


def case_of(seed: int) -> Case:
    """Return the case of a seed: always the same one."""
    draw = random.Random(seed)
    origin = draw.choice(origins())
    mutate = _mutated_bytes if draw.random() < 0.3 or origin.file.endswith(".sql") else _mutated_values
    return origin.case(mutate(origin.content, draw))


# --- values -----------------------------------------------------------------------------------------------------------


def _mutated_values(content: bytes, draw: random.Random) -> bytes:
    value = read(content, "x.yaml")[0].value
    for _ in range(draw.choice((1, 1, 1, 1, 1, 1, 2, 3, 8))):
        value = draw.choice(_CHANGES)(value, draw)
    return _written(value, draw)


def _written(value: Value, draw: random.Random) -> bytes:
    """Return YAML of `value`: as people write it, or as JSON."""
    if draw.random() < 0.3:
        return json.dumps(value, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    style = draw.choice((None, False, True))
    text = yaml.safe_dump(value, allow_unicode=draw.random() < 0.5, default_flow_style=style, sort_keys=False)
    return text.encode("utf-8", "surrogatepass")


def _paths(value: Value, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in entries:
        yield from _paths(one, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _with(value: Any, path: tuple[str | int, ...], change: Callable[[Any, str | int], None]) -> Any:
    """Return a copy of `value` in which `change` was done to what contains `path`."""
    if not path:
        return value
    copied = yaml_copy(value)
    change(_at(copied, path[:-1]), path[-1])
    return copied


def yaml_copy(value: Any) -> Any:
    """Return a copy of the lists and mappings in `value`."""
    if isinstance(value, dict):
        return {key: yaml_copy(one) for key, one in value.items()}
    return [yaml_copy(one) for one in value] if isinstance(value, list) else value


def _any_value(draw: random.Random) -> Any:
    return yaml_copy(draw.choice(draw.choice((TEXTS, TEXTS, NUMBERS, OTHERS))))


def _any_path(value: Value, draw: random.Random) -> tuple[str | int, ...]:
    return draw.choice(list(_paths(value)))


def _replace(value: Value, draw: random.Random) -> Value:
    new = _any_value(draw)

    def change(holder: Any, key: str | int) -> None:
        holder[key] = new

    return _with(value, _any_path(value, draw), change)


def _delete(value: Value, draw: random.Random) -> Value:
    def change(holder: Any, key: str | int) -> None:
        del holder[key]

    return _with(value, _any_path(value, draw), change)


def _rename(value: Value, draw: random.Random) -> Value:
    def change(holder: Any, key: str | int) -> None:
        new = draw.choice((draw.choice(TEXTS), f"{key}_2", str(key)[:-1]))
        if isinstance(holder, dict):
            entries = [(new if name == key else name, one) for name, one in holder.items()]
            holder.clear()
            holder.update(entries)

    return _with(value, _any_path(value, draw), change)


def _duplicate(value: Value, draw: random.Random) -> Value:
    def change(holder: Any, key: str | int) -> None:
        if isinstance(holder, dict):
            holder[f"{key}_again"] = yaml_copy(holder[str(key)])
        else:
            holder.extend([holder[int(key)]] * draw.choice((1, 1, 40)))

    return _with(value, _any_path(value, draw), change)


def _splice(value: Value, draw: random.Random) -> Value:
    """Put a part of another file, or of this one, somewhere else."""
    other = draw.choice((value, read(draw.choice(origins()).content, "x.yaml")[0].value))
    part = yaml_copy(_at(other, _any_path(other, draw)))

    def change(holder: Any, key: str | int) -> None:
        if isinstance(holder, dict) and draw.random() < 0.5:
            holder[draw.choice(KEYS_OF_SPECS)] = part
        else:
            holder[key] = part

    return _with(value, _any_path(value, draw), change)


def _wrap(value: Value, draw: random.Random) -> Value:
    depth = draw.choice((1, 1, 2, 30, 49, 80))

    def change(holder: Any, key: str | int) -> None:
        for _ in range(depth):
            holder[key] = [holder[key]] if draw.random() < 0.5 else {draw.choice(("a", "steps", "anyOf")): holder[key]}

    return _with(value, _any_path(value, draw), change)


def _alike(value: Value, draw: random.Random) -> Value:
    """Replace a text by a text, or a number by a number."""
    scalars = [path for path in _paths(value) if path and isinstance(_at(value, path), str | int | float)]
    if not scalars:
        return value
    text, number, boolean = draw.choice(TEXTS), draw.choice(NUMBERS), draw.random() < 0.5

    def change(holder: Any, key: str | int) -> None:
        old = holder[key]
        holder[key] = text if isinstance(old, str) else boolean if isinstance(old, bool) else number

    return _with(value, draw.choice(scalars), change)


def _right_value(argument: Argument, draw: random.Random) -> Any:
    """Return a value of the form that an argument takes."""
    text = draw.choice(TEXTS)
    forms = {
        "boolean": draw.random() < 0.5,
        "integer": draw.choice(NUMBERS[:12]),
        "number": draw.choice(NUMBERS),
        "text": text,
        "texts": draw.choice((text, [text], [text, draw.choice(TEXTS)], [text, text])),
        "duration": draw.choice(
            ("0s", "1s", "500ms", "1h 30m", "900000d", "999999999d", "0.0001ms", "99999999999999w")
        ),
        "datetime": draw.choice(("2026-01-01", "0001-01-01", "9999-12-31T23:59:59", "2026-01-01T00:00:00+23:59")),
        "mapping": draw.choice(({}, {text: text}, {"a": "mailto:a@b.c"}, {"a": 1}, {"a": {"b": [text]}})),
        "assets": draw.choice((text, [text], [{"name": text, "uri": draw.choice(TEXTS)}], [text, text])),
        "choice": draw.choice(argument.choices or TEXTS),
        "choices": [draw.choice(argument.choices or TEXTS)] * draw.choice((1, 2)),
    }
    return forms.get(argument.kind, text)


def _set_known_key(value: Value, draw: random.Random) -> Value:
    """Set an argument of Airflow's, or a key of a param: where one is set already, or where it may be."""
    table, place = draw.choice(_KNOWN_KEYS)
    name = draw.choice(list(table))
    given = _right_value(table[name], draw) if draw.random() < 0.7 else _any_value(draw)
    if not isinstance(value, dict) or not place:
        return {**value, name: given} if isinstance(value, dict) else value
    holders = [
        path for path in _paths(value) if path and path[:-1][-1:] == (place,) and isinstance(_at(value, path), dict)
    ]
    if not holders:
        return value

    def change(holder: Any, key: str | int) -> None:
        holder[key][name] = given

    return _with(value, draw.choice(holders), change)


_KNOWN_KEYS = (
    (DAG_ARGUMENTS, ""), (TASK_ARGUMENTS, "steps"), (TASK_ARGUMENTS, "steps"), (GROUP_ARGUMENTS, "steps"),
    (dict.fromkeys(KEYS, Argument("text")), "params"),
)  # fmt: skip
"""Names of arguments, and the key above the mappings that take them."""


def _set_declared_name(value: Value, draw: random.Random) -> Value:
    """Set a key of configs/ that declares names: of Variables, of SQL functions, of pools and queues."""
    if not isinstance(value, dict) or "dag_id" in value:
        return value
    key, name = draw.choice(("variables", "functions", "pools", "queues")), draw.choice(TEXTS)
    declared: dict[str, Any] = {
        "region": draw.choice(("text", "integer", "boolean", "date", name)),
        "max_rows": {"type": draw.choice(("integer", "number", "datetime", name)), "default": _any_value(draw)},
        name: draw.choice(("text", {"type": "text"}, {"default": 1}, {"type": "text", "other": 1})),
    }
    names: Any = (
        declared if key == "variables" else draw.choice(([name], [name, "lower"], ["default", "default"], name))
    )
    return {**value, key: names if draw.random() < 0.8 else _any_value(draw)}


def _put_expression(value: Value, draw: random.Random) -> Value:
    """Put an expression into a text, or in its place."""
    texts = [path for path in _paths(value) if path and isinstance(_at(value, path), str)]
    if not texts:
        return value
    template = f"{{{{ {expression(names_of(value), draw)} }}}}"

    def change(holder: Any, key: str | int) -> None:
        text = holder[key]
        place = draw.randint(0, len(text))
        holder[key] = template if draw.random() < 0.5 else text[:place] + template + text[place:]

    return _with(value, draw.choice(texts), change)


def _edit_text(value: Value, draw: random.Random) -> Value:
    """Put something into a text."""
    texts = [path for path in _paths(value) if path and isinstance(_at(value, path), str)]
    if not texts:
        return value

    def change(holder: Any, key: str | int) -> None:
        text = holder[key]
        place = draw.randint(0, len(text))
        holder[key] = text[:place] + draw.choice(TEXTS) + text[place + draw.choice((0, 0, 1, 5)) :]

    return _with(value, draw.choice(texts), change)


_CHANGES = (
    _replace, _replace, _delete, _rename, _duplicate, _splice, _wrap, _edit_text, _set_known_key, _set_known_key,
    _set_known_key, _alike, _alike, _put_expression, _put_expression, _put_expression, _set_declared_name,
)  # fmt: skip


# --- bytes ------------------------------------------------------------------------------------------------------------


def _mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 3, 10))):
        place = draw.randint(0, len(content))
        kind = draw.choice(("flip", "cut", "insert", "insert", "repeat", "move", "end"))
        if kind == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place] + content[place + draw.choice((1, 2, 10, 100)) :]
        elif kind == "insert":
            content = content[:place] + draw.choice(BYTES) + content[place:]
        elif kind == "repeat":
            part = content[place : place + draw.choice((1, 10, 100))]
            content = content[:place] + part * draw.choice((2, 2, 50)) + content[place:]
        elif kind == "move":
            part = content[place : place + draw.choice((5, 50))]
            other = draw.randint(0, len(content))
            content = content[:other] + part + content[other:]
        elif kind == "end":
            content = content[:place]
    return content
