"""Owns the way to PostgreSQL: named queries, the pool, and migrations."""

import re
from collections.abc import Mapping
from importlib import resources


def load_queries(package: str) -> Mapping[str, str]:
    """The statements of `queries.sql` in `package`, by the name in each ``-- name: NAME`` line."""
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^-- name: *(\w+).*$", text)
    return {parts[i]: parts[i + 1].strip().rstrip(";") for i in range(1, len(parts), 2)}
