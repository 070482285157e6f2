"""Tables of every type and constraint of Postgres, drawn by a seed, and what plain SQL makes of merging them."""

from __future__ import annotations

import random
from dataclasses import dataclass

TYPES = """
    CREATE TYPE s.pair AS (a int, b text); CREATE TYPE s.mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN s.currency AS varchar(3); CREATE DOMAIN s.positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN s.shape AS box; CREATE TYPE s.span AS RANGE (subtype = float8);
"""
KEYS: dict[str, list[str]] = {
    "int": ["1", "2", "3", "4"],
    "bigint": ["1", "9007199254740993"],
    "smallint": ["1", "2", "3"],
    "numeric": ["1", "1.00", "2.5", "NaN"],
    "numeric(6, 2)": ["1.005", "2", "3"],
    "text": ["a", "A", "ä", "", "a "],
    "varchar(3)": ["a", "abc", "b "],
    "char(3)": ["a", "ab", "b"],
    "date": ["2026-01-01", "20226-01-05", "0044-03-15 BC", "infinity"],
    "timestamptz": ["2026-01-01 00:00+02", "2026-01-01", "-infinity"],
    "timestamp(0)": ["2026-01-01 00:00:00.4", "2026-01-01 00:00:01"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "boolean": ["true", "false"],
    "inet": ["10.0.0.1", "10.0.0.0/8"],
    "bytea": ["\\x00", "\\x0001"],
    "interval": ["1 mon", "30 days", "1 day"],
    "double precision": ["0", "-0", "1e300", "NaN"],
    "s.mood": ["sad", "glad"],
    "s.currency": ["EUR", "USD"],
    "int4range": ["[1,3)", "empty"],
    "int[]": ["{1,2}", "{}"],
}
"""Types that may be keys, with values of each."""
OTHERS: dict[str, list[str]] = {
    "real": ["0.1", "-Infinity"],
    "money": ["1", "-2.5"],
    "json": ['{"a": 1}', '{"a":1}', "null"],
    "jsonb": ['{"a": 1.0}', '{"a": 1.00}', "null"],
    '"char"': ["a", "b"],
    "name": ["a", "b"],
    "time": ["24:00", "10:00"],
    "timetz": ["24:00+15", "10:00+02"],
    "bit(3)": ["101", "010"],
    "bit varying": ["1", "1011"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "point": ["(1,2)", "(1,3)"],
    "box": ["(2,2),(0,0)", "(4,1),(0,0)"],
    "polygon": ["((0,0),(1,1))", "((0,0),(1,2))"],
    "circle": ["<(0,0),1>", "<(5,5),1>"],
    "path": ["[(0,0),(1,1)]"],
    "lseg": ["[(0,0),(1,1)]"],
    "line": ["{1,2,3}"],
    "tsvector": ["a b", "a c"],
    "tsquery": ["a:A", "a:B"],
    "daterange": ["[2026-01-01,20226-01-01)", "empty"],
    "int4multirange": ["{[1,3),[5,7)}", "{}"],
    "pg_lsn": ["16/B374D848"],
    "pg_snapshot": ["10:20:"],
    "s.pair": ["(1,a)", "(,)"],
    "s.shape": ["(2,2),(0,0)", "(4,1),(0,0)"],
    "s.span": ["[1,2)"],
    "s.positive": ["1", "2"],
    "text[]": ["{a,NULL}", "{}"],
    "s.mood[]": ["{sad}"],
    "json[]": ['{"1"}'],
    "bytea[]": ["{}"],
}
KINDS = KEYS | OTHERS
NAMES = ["v", "V", "a b", "Größe", "100%", "select", "kind", 'say "hi"', "%(x)s", "{y}", "s", "t", "1st"]
MORE = ["more int DEFAULT 7", "stamped date DEFAULT '2026-01-01'", "number int GENERATED ALWAYS AS IDENTITY"]
"""Columns of the target that the source lacks."""


@dataclass(frozen=True, slots=True)
class Made:
    """A source and a target: the statements that make them and fill them, and the columns that a merge is about."""

    tables: str
    rows: list[str]
    keys: list[str]
    columns: list[str]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def made(seed: int) -> Made:
    """Return how s.source and s.target are made, and rows for them, of which the server may refuse some."""
    draw = random.Random(seed)
    names = draw.sample(NAMES, draw.randint(1, 6))
    keys = names[: draw.choice([1, 1, 1, 2])]
    own = {name: draw.choice(list(KEYS if name in keys else KINDS)) for name in names}
    given = {name: draw.choice(list(KINDS)) if draw.random() < 0.1 else kind for name, kind in own.items()}
    columns = [f"{quoted(name)} {kind}{'' if name in keys else _constraint(draw, name)}" for name, kind in own.items()]
    unique = f"{draw.choice(['PRIMARY KEY', 'UNIQUE'])} ({', '.join(map(quoted, keys))})"
    tables = [
        f"CREATE TABLE s.target ({', '.join([*columns, *draw.sample(MORE, draw.randint(0, 2)), unique])})",
        *(f"ALTER TABLE s.target ALTER {quoted(name)} SET NOT NULL" for name in keys),
        f"CREATE TABLE s.source ({', '.join(f'{quoted(name)} {kind}' for name, kind in given.items())}, extra int)",
    ]
    rows = [_row(draw, "s.source", given, keys) for _ in range(draw.randint(0, 5))]
    rows += [_row(draw, "s.target", own, keys) for _ in range(draw.randint(0, 3))]
    return Made(";\n".join(tables), rows, keys, names[len(keys) :])


def _constraint(draw: random.Random, name: str) -> str:
    return draw.choice(["", "", "", f" CHECK (length({quoted(name)}::text) < 14)", " NOT NULL"])


def _row(draw: random.Random, table: str, kinds: dict[str, str], keys: list[str]) -> str:
    values = (_value(draw, kind, nulls=0.02 if name in keys else 0.2) for name, kind in kinds.items())
    return f"INSERT INTO {table} ({', '.join(map(quoted, kinds))}) VALUES ({', '.join(values)})"


def _value(draw: random.Random, kind: str, *, nulls: float) -> str:
    if draw.random() < nulls:
        return "NULL"
    return "'" + draw.choice(KINDS[kind]).replace("'", "''") + f"'::{kind}"


def plain_merge(tables: Made) -> str:
    """Return what a person writes for a merge, into s.plain; rows of the source that share a key are refused."""
    listed, keys = (", ".join(map(quoted, names)) for names in ([*tables.keys, *tables.columns], tables.keys))
    changes = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in tables.columns)
    action = f"UPDATE SET {changes}" if changes else "NOTHING"
    return f"""
        CREATE TEMPORARY TABLE typed ON COMMIT DROP AS SELECT {listed} FROM s.plain WITH NO DATA;
        INSERT INTO typed SELECT {listed} FROM s.source;
        CREATE UNIQUE INDEX ON typed ({keys});
        INSERT INTO s.plain ({listed}) SELECT {listed} FROM s.source ON CONFLICT ({keys}) DO {action};
    """
