"""Airflow's Variables that templates may read: those that `configs/` declares, each with a type.

Knows how a declaration is written and how a Variable's text is read; it refuses to know Airflow.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from factory.language.document import Value
from factory.language.errors import did_you_mean
from factory.language.value_types import SCALARS, ValueType, accepts, typed

SENSITIVE = frozenset({
    "access_key", "access_token", "api_key", "apikey", "auth_header", "authorization", "bearer", "connection_string",
    "dsn", "passphrase", "passwd", "password", "private_key", "proxy", "proxy_password", "proxies", "secret",
    "service_account", "service_key", "token", "keyfile_dict", "webhook_url",
})  # fmt: skip
"""The words in a Variable's name by which Airflow takes it for a secret and masks it; a test compares them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared Variable. Without a default, it must be set in Airflow."""

    name: str
    type: ValueType
    default: Value = None


class BadVariable(Exception):
    """A declaration that is wrong, with the key that is at fault below it."""

    def __init__(self, message: str, hint: str, *, code: str = "wrong-value", key: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code
        self.key = key


def read_variable(name: str, value: Value) -> Variable:
    """Return the Variable that is declared as `name: type` or `name: {type: …, default: …}`; raise BadVariable."""
    if not _NAME.match(name):
        raise BadVariable(f'"{name}" cannot be the name of a Variable here', "use letters, digits and _")
    if is_sensitive(name):
        raise BadVariable(
            f'Airflow takes the Variable "{name}" for a secret; in a template it would be shown in the UI',
            "keep secrets in a connection, and name it in `with`",
            code="secret-template",
        )
    given = value if isinstance(value, dict) else {"type": value}
    for key in given.keys() - {"type", "default"}:
        raise BadVariable(f'"{key}" is not a key of a Variable', "keys: default, type", code="unknown-key", key=key)
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in SCALARS:
        hint = did_you_mean(str(kind), SCALARS, "types")
        raise BadVariable(f'the type of the Variable "{name}" is {kind!r}', hint, key="type" if given is value else "")
    default = given.get("default")
    if default is not None and not _is_of(SCALARS[kind], default):
        raise BadVariable(f"its default {default!r} is not {_shown(kind)}", f"write {_shown(kind)}", key="default")
    return Variable(name, SCALARS[kind], default)


def is_sensitive(name: str) -> bool:
    """Return whether Airflow masks the Variable of this name."""
    return any(word in name.lower() for word in SENSITIVE)


def _shown(kind: str) -> str:
    return f"an {kind}" if kind == "integer" else f"a {kind}"


def _is_of(kind: ValueType, value: Value) -> bool:
    try:
        return accepts((kind,), typed(value, (kind,)))
    except ValueError:
        return False


_FORMS = {"integer": re.compile(r"[+-]?[0-9]{1,18}"), "number": re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")}


def variable_value(text: str, kind: ValueType) -> object:
    """Return the value of a Variable, which Airflow keeps as text; raise ValueError if it is not of its type."""
    bare = text.strip()
    if kind.name == "boolean" and bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    if kind.name in _FORMS and _FORMS[kind.name].fullmatch(bare):
        number = int(bare) if kind.name == "integer" else float(bare)
        if math.isfinite(number):
            return number
    if kind.name in ("date", "datetime"):
        return typed(bare, (kind,))
    if kind.name == "text":
        return text
    raise ValueError(f"{text!r} is not {_shown(kind.name)}")
