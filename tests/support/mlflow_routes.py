"""Every address that MLflow's server has, as its own code lists them."""

from __future__ import annotations

import re
from functools import cache

PUBLIC = {
    ("GET", "/health"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("GET", "/ajax-api/3.0/mlflow/server-info"),
}
"""What answers anyone: that the server is up, and what it can do. (The scripts of its page do so too.)"""
_PLACEHOLDER = re.compile(r"\{[^}]*\}|<[^>]*>")


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Return each method and path, with x in the place of names; those of files of the page are left out."""
    from mlflow.server import app as flask
    from mlflow.server.auth import routes as users
    from mlflow.server.fastapi_app import app as native

    own = {(method, route.path) for route in native.routes for method in getattr(route, "methods", None) or ()}
    mounted = {(method, rule.rule) for rule in flask.url_map.iter_rules() for method in rule.methods or ()}
    login = {("GET", path) for path in vars(users).values() if isinstance(path, str) and path.startswith("/")}
    return frozenset(
        (method, _PLACEHOLDER.sub("x", path))
        for method, path in own | mounted | login
        if method not in {"HEAD", "OPTIONS"} and not path.startswith("/static-files")
    )
