"""Owns how the bytes of a FHIR request become one JSON object: UTF-8, within limits, and of one meaning only."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import NoReturn

import msgspec
import orjson

from tocengine.errors import SyntaxRefusedError
from tocengine.formats.fhir.resources import Json, Resource
from tocengine.model.message import Problem

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BodyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a body may be. Nesting of objects and lists (FHIR content rarely reaches 15), and entries of a Bundle."""

    depth: int = 64
    entries: int = 1000


DEFAULT_LIMITS = BodyLimits()


def refused(reason: str, text: str, location: str, code: str = "invalid") -> SyntaxRefusedError:
    """The refusal to raise; `code` is an OperationOutcome issue type."""
    return SyntaxRefusedError(Problem(reason=reason, text=text, location=location, code=code))


def refuse(reason: str, text: str, location: str, code: str = "invalid") -> NoReturn:
    """Raises the refusal."""
    raise refused(reason, text, location, code)


def safe_name(name: object) -> str:
    """`name` if it can be an element's name; anything else a sender put there is not repeated."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "?"


def path_text(root: str, parts: tuple[str | int, ...]) -> str:
    """The FHIRPath of an element: ``Bundle.entry[1].resource.status``."""
    return root + "".join(f"[{part}]" if isinstance(part, int) else "." + safe_name(part) for part in parts)


def parse_json(body: bytes) -> Resource:
    """The JSON object in `body`; a byte order mark before it is ignored (RFC 8259 section 8.1).

    Raises SyntaxRefusedError for anything else.
    """
    try:
        value: Json = orjson.loads(body.removeprefix(_BYTE_ORDER_MARK))
    except orjson.JSONDecodeError:
        refuse("not_json", "The body is not valid JSON in UTF-8.", "", "structure")
    if not isinstance(value, dict):
        refuse("not_an_object", "The body is not a JSON object.", "", "structure")
    return value


def read_json(body: bytes, limits: BodyLimits = DEFAULT_LIMITS) -> Resource:
    """The JSON object in `body`, within the limits.

    Raises SyntaxRefusedError for anything else, and for an object that says one thing twice: which of the two a
    sender means, nobody can tell.
    """
    value = parse_json(body)
    if _too_deep(value, limits.depth):
        refuse("too_deep", f"The body nests deeper than {limits.depth} levels.", "", "too-costly")
    entries = value.get("entry")
    if isinstance(entries, list) and len(entries) > limits.entries:
        refuse("too_many_entries", f"The Bundle has more than {limits.entries} entries.", "Bundle.entry", "too-costly")
    _refuse_doubled(body.removeprefix(_BYTE_ORDER_MARK), str(value.get("resourceType", "")))
    return value


class _Doubled(dict[str, Json]):
    """An object with a name that it has twice."""

    name = ""


def _refuse_doubled(text: bytes, root: str) -> None:
    found = False

    def object_of(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        nonlocal found
        found = True
        doubled = _Doubled(made)
        doubled.name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        return doubled

    value: Json = json.loads(text, object_pairs_hook=object_of)
    if not found:
        return
    where, name = next(_doubled_in(value, ()))
    path = path_text(safe_name(root), (*where, name))
    refuse("said_twice", "An object has two members of one name.", path, "structure")


def _doubled_in(value: Json, where: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, _Doubled):
        yield where, value.name
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _doubled_in(inner, (*where, name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _doubled_in(inner, (*where, position))


def _too_deep(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _contained(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _contained(outer: Json) -> "Iterator[Json] | list[Json]":
    if isinstance(outer, dict):
        return iter(outer.values())
    return outer if isinstance(outer, list) else []
