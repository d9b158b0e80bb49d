"""Owns `tocengine.toml`: from text to a checked `Config`, or a refusal that says where, what and what was meant.

Every table is walked against its struct, so that each refusal names one key. Overrides from the environment
(``TOCENGINE__SECTION__KEY``) are laid over the file before that and are refused under their own name.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, NoReturn, TypeAlias, cast, get_args, get_origin

import msgspec

from tocengine import toml_places
from tocengine.config import Config
from tocengine.config_checks import check
from tocengine.errors import ConfigurationError
from tocengine.model.facts import PatientClass
from tocengine.model.ids import FacilityId, FeedName
from tocengine.model.profile import IdentifierDomain, Source, SourceProfile

ENVIRONMENT_PREFIX = "TOCENGINE__"
_CONFIDENTIAL = re.compile(r"secret|password|dsn|keys")
_PATHS_AS_TEXT = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}

Table: TypeAlias = dict[str, object]
Annotation: TypeAlias = object
"""A type as a struct field states it; only msgspec looks into it further than `_Reader.read` does."""


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """The settings in `path` with the overrides of `environ` (default: the process's own), checked as a whole.

    Relative paths, in ``file:`` references too, start at the file's folder. Raises ConfigurationError.
    """
    places, document = _parse(path)
    reader = _Reader(path, places)
    for name, text in sorted((os.environ if environ is None else environ).items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            reader.override(document, name, text)
    config = cast(Config, reader.read(document, Config, ()))
    data_dir = path.parent.absolute() / config.engine.data_dir  # also where it is the default
    config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, data_dir=data_dir))
    check(config, document, reader.refuse)
    return config


def domains_by_name(config: Config) -> dict[str, IdentifierDomain]:
    """Every identifier domain, by its name and by each of its aliases."""
    return {name: domain for domain in config.identifier_domains for name in (domain.name, *domain.aliases)}


def sources(config: Config) -> Mapping[FeedName, Source]:
    """What the normalizer needs of each feed."""
    facilities = {facility.id: facility for facility in config.facilities}
    domains = domains_by_name(config)
    return {
        FeedName(feed.name): Source(
            feed=FeedName(feed.name),
            facility=facilities[FacilityId(feed.facility)],
            profile=config.profiles[feed.profile] if feed.profile else SourceProfile(),
            shadow=feed.shadow,
            domains=domains,
        )
        for feed in config.feeds
    }


def _parse(path: Path) -> tuple[Mapping[toml_places.Path, int], Table]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no configuration file {path}", hint="`tocengine init DIR` writes one that runs"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {type(error).__name__}", file=str(path)) from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        stated = re.search(r"at line (\d+)", str(error))
        line = int(stated[1]) if stated else text.count("\n") + 1
        raise ConfigurationError(f"no valid TOML: {error}", file=str(path), line=line) from error
    return toml_places.places(text.replace("\r\n", "\n")), document


class _Reader:
    """Turns one document into structs; knows where each key came from."""

    def __init__(self, path: Path, places: Mapping[toml_places.Path, int]) -> None:
        self._file = path
        self._places = places
        self._overrides: dict[toml_places.Path, str] = {}

    def refuse(self, path: toml_places.Path, text: str, hint: str = "") -> NoReturn:
        """Raises ConfigurationError for the key at `path`."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self._overrides:
                raise ConfigurationError(text, file=self._overrides[path[:depth]], hint=hint)
        line = toml_places.line_of(self._places, path)
        raise ConfigurationError(text, file=str(self._file), line=line, hint=hint)

    def override(self, document: Table, name: str, text: str) -> None:
        """Lays one environment variable over `document`; lists of tables are entered by index."""
        annotation: Annotation = Config
        node: object = document
        path: toml_places.Path = ()
        words = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        for position, word in enumerate(words):
            key, annotation = _step(annotation, node, word, name)
            path += (key,)
            if position == len(words) - 1:
                value = _override_value(text, annotation)
                if isinstance(node, dict):
                    node[key] = value
                else:
                    cast(list[object], node)[cast(int, key)] = value
            elif isinstance(node, dict):
                node = node.setdefault(key, {})
            else:
                node = cast(list[object], node)[cast(int, key)]
        self._overrides[path] = name

    def read(self, value: object, annotation: Annotation, path: toml_places.Path) -> object:
        """`value` as the type `annotation`, or a refusal naming the key."""
        plain = _plain(annotation)
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            return self._read_struct(value, plain, path)
        origin, arguments = get_origin(plain), get_args(plain)
        if origin is tuple and isinstance(value, list):
            return tuple(self.read(item, arguments[0], (*path, index)) for index, item in enumerate(value))
        if origin is dict and isinstance(value, dict):
            return {key: self.read(item, arguments[1], (*path, key)) for key, item in value.items()}
        return self._read_leaf(value, annotation, plain, path)

    def _read_struct(self, value: object, struct: type[msgspec.Struct], path: toml_places.Path) -> msgspec.Struct:
        if not isinstance(value, dict):
            self.refuse(path, f"{dotted(path)} must be a table, not {_found(value, path)}")
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        for key in value:
            if key not in fields:
                self.refuse((*path, key), f"unknown key {dotted((*path, key))}", _meant(key, list(fields)))
        for name, field in fields.items():
            if field.required and name not in value:
                self.refuse(path, f"{dotted(path)} has no {name!r}")
        arguments = {fields[key].name: self.read(item, fields[key].type, (*path, key)) for key, item in value.items()}
        return struct(**arguments)

    def _read_leaf(self, value: object, annotation: Annotation, plain: Annotation, path: toml_places.Path) -> object:
        if plain is Path and isinstance(value, str):
            return self._file.parent.absolute() / Path(value).expanduser()
        if path[-1] in _PATHS_AS_TEXT and isinstance(value, str) and value:
            return str(self._file.parent.absolute() / Path(value).expanduser())
        if plain is str and isinstance(value, str) and value.startswith("file:"):
            return f"file:{self._file.parent.absolute() / Path(value[5:]).expanduser()}"
        if plain is PatientClass and isinstance(value, str):
            value = value.upper()
        if path == ("delivery", "max_age") and isinstance(value, str):
            value = self._hours(value, path)
        choices = _choices(plain)
        if choices and value not in choices:
            hint = _meant(str(value), choices)
            self.refuse(path, f"{dotted(path)} is {_found(value, path)}, not one of {', '.join(choices)}", hint)
        try:
            return msgspec.convert(value, type=cast(type[object], annotation))
        except msgspec.ValidationError as error:
            expected = re.sub(r", got.*$", "", str(error)).replace("`", "")
            expected = expected[:1].lower() + expected[1:]
            self.refuse(path, f"{dotted(path)} is {_found(value, path)}: {expected}")

    def _hours(self, text: str, path: toml_places.Path) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([mhd])", text)
        if match is None:
            self.refuse(path, f"{dotted(path)} is {text!r}: expected hours, or a text like '24h', '90m', '2d'")
        return float(match[1]) * _HOURS[match[2]]


def dotted(path: toml_places.Path) -> str:
    """``feeds[0].listen``"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the file"


def _plain(annotation: Annotation) -> Annotation:
    """The annotation without constraints and without ``| None`` (TOML has no null)."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if isinstance(annotation, UnionType):
        return _plain(next(part for part in get_args(annotation) if part is not NoneType))
    return getattr(annotation, "__supertype__", annotation)  # a NewType is what it is made of


def _choices(plain: Annotation) -> list[str]:
    if get_origin(plain) is Literal:
        return [str(choice) for choice in get_args(plain)]
    if plain is PatientClass:
        return [str(choice) for choice in PatientClass]
    return []


def _step(annotation: Annotation, node: object, word: str, name: str) -> tuple[str | int, Annotation]:
    """One word of an override's name: the key it means and the type found there."""
    plain = _plain(annotation)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct) and isinstance(node, dict):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(plain)}
        if word in fields:
            return word, fields[word]
        raise ConfigurationError(f"{name}: there is no setting {word!r}", hint=_meant(word, list(fields)))
    arguments = get_args(plain)
    if get_origin(plain) is dict and isinstance(node, dict):
        existing = {str(key).lower(): str(key) for key in node}
        return existing.get(word, word), arguments[1]
    if get_origin(plain) is tuple and isinstance(node, list) and word.isdigit() and int(word) < len(node):
        return int(word), arguments[0]
    raise ConfigurationError(f"{name}: {word!r} leads nowhere", hint="lists of tables are entered by number, from 0")


def _override_value(text: str, annotation: Annotation) -> object:
    plain = _plain(annotation)
    if plain in (str, Path, PatientClass) or get_origin(plain) is Literal:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _meant(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in known], 1, 0.6)
    if close:
        return f"did you mean {next(name for name in known if name.lower() == close[0])!r}?"
    return f"known: {', '.join(known)}" if len(known) <= 12 else ""


def _found(value: object, path: toml_places.Path) -> str:
    """What stands there, for a person; a secret is not repeated."""
    if _CONFIDENTIAL.search(dotted(path)):
        return f"a {type(value).__name__}"
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else repr(value)
