"""Specs of any size, each large in one way."""

from __future__ import annotations

from collections.abc import Callable, Mapping

SAY = "{uses: messages.log, with: {message: hello}}"
_SAY = SAY.removesuffix("}")
_HEAD = "dag_id: large\nsteps:\n"


def steps_apart(count: int) -> str:
    return _HEAD + "".join(f"  s{index}: {SAY}\n" for index in range(count))


def line(count: int) -> str:
    later = (f"  s{index}: {_SAY}, needs: s{index - 1}}}\n" for index in range(1, count))
    return f"{_HEAD}  s0: {SAY}\n{''.join(later)}"


def fan(count: int) -> str:
    names = [f"s{index}" for index in range(count - 2)]
    middle = "".join(f"  {name}: {_SAY}, needs: first}}\n" for name in names)
    return f"{_HEAD}  first: {SAY}\n{middle}  last: {_SAY}, needs: [{', '.join(names)}]}}\n"


def references(count: int) -> str:
    later = (
        f'  s{index}: {{uses: messages.log, with: {{message: "{{{{ steps.s{index - 1}.message }}}}"}}}}\n'
        for index in range(1, count)
    )
    return f"{_HEAD}  s0: {SAY}\n{''.join(later)}"


def unknown_references(count: int) -> str:
    return _HEAD + "".join(
        f'  s{index}: {{uses: messages.log, with: {{message: "{{{{ steps.x{index}.message }}}}"}}}}\n'
        for index in range(count)
    )


def unknown_needs(count: int) -> str:
    return _HEAD + "".join(f"  s{index}: {_SAY}, needs: x{index}}}\n" for index in range(count))


def unknown_tasks(count: int) -> str:
    return _HEAD + "".join(f"  s{index}: {{uses: messages.x{index}}}\n" for index in range(count))


def unknown_keys(count: int) -> str:
    return f"{_HEAD}  say: {SAY}\n" + "".join(f"x{index}: 1\n" for index in range(count))


def unknown_arguments(count: int) -> str:
    given = ", ".join(f"x{index}: 1" for index in range(count))
    return f"{_HEAD}  say: {{uses: messages.log, with: {{message: hello, {given}}}}}\n"


def repeated_keys(count: int) -> str:
    return f"{_HEAD}  say: {SAY}\n" + "".join(f"x{index}: 1\nx{index}: 2\n" for index in range(count // 2))


def params(count: int) -> str:
    declared = "".join(f"  p{index}: {{type: string, default: hello}}\n" for index in range(count))
    steps = "".join(
        f'  s{index}: {{uses: messages.log, with: {{message: "{{{{ params.p{index} }}}}"}}}}\n'
        for index in range(count)
    )
    return f"dag_id: large\nparams:\n{declared}steps:\n{steps}"


def suites(count: int) -> str:
    declared = "".join(_suite(index) for index in range(count))
    return f"dag_id: large\nsuites:\n{declared}steps:\n" + "".join(
        f"  s{index}: {{uses: quality.validate, with: {{suite: u{index}}}}}\n" for index in range(count)
    )


def groups_in_a_line(count: int) -> str:
    return _HEAD + "".join(
        f"  g{index}:\n    needs: {f'g{index - 1}' if index else '[]'}\n    steps:\n"
        f"      a: {SAY}\n      b: {_SAY}, needs: a}}\n"
        for index in range(count // 2)
    )


def one_group(count: int) -> str:
    inside = "".join(f"      s{index}: {SAY}\n" for index in range(count))
    return f"{_HEAD}  before: {SAY}\n  g:\n    needs: before\n    steps:\n{inside}  after: {_SAY}, needs: g}}\n"


def deep_groups(count: int) -> str:
    """Groups inside each other, 20 deep, with a step in each."""
    depth = 20
    levels = [
        f"{'    ' * level}  g:\n{'    ' * level}    steps:\n{'    ' * level}      s: {SAY}\n" for level in range(depth)
    ]
    inner = "".join(level if index else "" for index, level in enumerate(levels))
    return _HEAD + "".join(levels[0].replace("  g:", f"  g{index}:", 1) + inner for index in range(count // depth))


def groups_that_need_each_other(count: int) -> str:
    """Two groups of `count` steps, of which the second needs the first."""
    inside = "".join(f"      s{index}: {SAY}\n" for index in range(count))
    return f"{_HEAD}  one:\n    steps:\n{inside}  two:\n    needs: one\n    steps:\n{inside}"


def long_branch(count: int) -> str:
    arms = "".join(f'      - {{if: "{{{{ params.x == {index} }}}}", then: s{index}}}\n' for index in range(count - 1))
    steps = "".join(f"  s{index}: {SAY}\n" for index in range(count))
    names = ", ".join(f"s{index}" for index in range(count))
    last = f"  last: {_SAY}, needs: [{names}], trigger_rule: none_failed_min_one_success}}\n"
    head = "dag_id: large\nparams: {x: {type: integer, default: 1}}\nsteps:\n  choose:\n    branch:\n"
    return f"{head}{arms}      - else: s{count - 1}\n{steps}{last}"


def many_branches(count: int) -> str:
    head = "dag_id: large\nparams: {x: {type: boolean, default: true}}\nsteps:\n"
    return head + "".join(
        f'  b{index}: {{branch: [{{if: "{{{{ params.x }}}}", then: x{index}}}, {{else: y{index}}}]'
        f"{f', needs: j{index - 1}' if index else ''}}}\n  x{index}: {SAY}\n  y{index}: {SAY}\n"
        f"  j{index}: {_SAY}, needs: [x{index}, y{index}], trigger_rule: none_failed_min_one_success}}\n"
        for index in range(count // 4)
    )


def loads_in_a_line(count: int) -> str:
    """Steps in threes: a build, its gate and its load, each three after the one before."""
    return _loads(count, in_line=count)


def loads_in_lines(count: int) -> str:
    """The same in lines of ten loads: each load gets all gates before it, so the work of one line is quadratic."""
    return _loads(count, in_line=10)


def loads_apart(count: int) -> str:
    return _loads(count, in_line=1)


def mapped_items(count: int) -> str:
    return f"{_HEAD}  say: {{uses: messages.log, expand: {{message: [{', '.join(['hello'] * count)}]}}}}\n"


def templates_in_one_text(count: int) -> str:
    text = " ".join(["{{ params.x }}"] * count)
    step = f'{{uses: messages.log, with: {{message: "{text}"}}}}'
    return f"dag_id: large\nparams: {{x: {{default: 1}}}}\nsteps:\n  s: {step}\n"


def wrong_columns(count: int) -> str:
    """One step with a mistake and a template in each of many arguments."""
    columns = ", ".join(f'"c {index}": "{{{{ params.x }}}} + 1"' for index in range(count))
    given = f"{{connection: c, source: a.b, target: a.c, columns: {{{columns}}}}}"
    return (
        f"dag_id: large\nparams: {{x: {{default: 1}}}}\nsteps:\n  s: {{uses: postgres.rebuild_table, with: {given}}}\n"
    )


def unknown_functions(count: int) -> str:
    return _HEAD + "".join(
        f'  s{index}: {{uses: messages.log, with: {{message: "{{{{ f{index}(run.date) }}}}"}}}}\n'
        for index in range(count)
    )


def former_names(count: int) -> str:
    step = '{uses: messages.log, with: {message: "{{ ds }}"}}'
    return _HEAD + "".join(f"  s{index}: {step}\n" for index in range(count))


def unknown_sql_functions(count: int) -> str:
    columns = ", ".join(f"c{index}: f{index}(id)" for index in range(count))
    given = f"{{connection: c, source: a.b, target: a.c, columns: {{{columns}}}}}"
    return f"{_HEAD}  s: {{uses: postgres.rebuild_table, with: {given}}}\n"


def ring(count: int) -> str:
    return line(count).replace(f"  s0: {SAY}", f"  s0: {_SAY}, needs: s{count - 1}}}")


def assets(count: int) -> str:
    names = ", ".join(f"a{index}" for index in range(count))
    return f"dag_id: large\nschedule: {{assets: [{names}]}}\nsteps: {{say: {SAY}}}\n"


def _suite(index: int) -> str:
    rules = "[expect_table_row_count_to_be_between: {min_value: 1}]"
    return f"  u{index}: {{connection: c, batch: {{table: a.b{index}}}, expectations: {rules}}}\n"


def _loads(count: int, *, in_line: int) -> str:
    numbers = range(count // 3)
    steps = "".join(
        f"  r{index}: {{uses: postgres.rebuild_table, {f'needs: l{index - 1}, ' if index % in_line else ''}"
        f"with: {{connection: c, source: x.y, target: a.b{index}, columns: {{id: id}}}}}}\n"
        f"  q{index}: {{uses: quality.validate, needs: r{index}, with: {{suite: u{index}}}}}\n"
        f"  l{index}: {{uses: postgres.merge, needs: q{index}, "
        f"with: {{connection: c, source: a.b{index}, target: p.t{index}, keys: [id]}}}}\n"
        for index in numbers
    )
    return f"dag_id: large\nsuites:\n{''.join(map(_suite, numbers))}steps:\n{steps}"


Shape = Callable[[int], str]
SHAPES: Mapping[str, Shape] = {
    shape.__name__: shape
    for shape in (
        steps_apart, line, fan, references, unknown_references, unknown_needs, unknown_tasks, unknown_keys,
        unknown_arguments, repeated_keys, params, suites, groups_in_a_line, one_group, deep_groups, long_branch,
        many_branches, loads_in_lines, loads_apart, mapped_items, templates_in_one_text, wrong_columns,
        unknown_functions, former_names, unknown_sql_functions, ring, assets,
    )
}  # fmt: skip
"""Every way to be large in which the work must grow as the size does."""
