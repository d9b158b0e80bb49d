"""Owns reading YAML with the line of everything: typed access to nodes, every problem collected with its place."""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from tocengine.errors import ConfigurationError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = "tag:yaml.org,2002:null"
_MOST_SHOWN = 20


def suggestion(word: str, known: Iterable[str]) -> str:
    """ "did you mean X?" where one of `known` is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


class Problems:
    """What is wrong with a file, all of it, so that a person corrects it once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: list[tuple[int, str, str]] = []

    def add(self, line: int, text: str, hint: str = "") -> None:
        """Notes a problem; `line` counts from 1."""
        self._found.append((line, text, hint))

    def raise_if_any(self) -> None:
        """Raises ConfigurationError with the first problem's place and the text of all."""
        if not self._found:
            return
        found = sorted(self._found)
        line, text, hint = found[0]
        shown = [f"{self.file}:{n}: {t}" + (f" ({h})" if h else "") for n, t, h in found[1:_MOST_SHOWN]]
        if len(found) > _MOST_SHOWN:
            shown.append(f"and {len(found) - _MOST_SHOWN} more")
        first = text + (f" ({hint})" if hint and shown else "")
        raise ConfigurationError("\n".join((first, *shown)), file=str(self.file), line=line, hint="" if shown else hint)


class Item:
    """A node of the file with its place. Reading it wrongly notes a problem and gives an empty value."""

    def __init__(self, node: yaml.Node, problems: Problems) -> None:
        self.node, self.problems = node, problems

    @property
    def line(self) -> int:
        """Counted from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def is_null(self) -> bool:
        """Written as nothing, ``null`` or ``~``."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL

    @property
    def is_text(self) -> bool:
        """A single value."""
        return isinstance(self.node, yaml.ScalarNode) and not self.is_null

    def problem(self, text: str, hint: str = "") -> None:
        """Notes a problem at this place."""
        self.problems.add(self.line, text, hint)

    def text(self, what: str) -> str:
        """The value as written: digits keep their leading zeros whether they are quoted or not."""
        if isinstance(self.node, yaml.ScalarNode) and not self.is_null:
            return str(self.node.value).strip()
        self.problem(f"{what} must be a single value")
        return ""

    def items(self, what: str) -> Iterator["Item"]:
        """The elements of a list."""
        if isinstance(self.node, yaml.SequenceNode):
            for node in self.node.value:
                yield Item(node, self.problems)
        elif not self.is_null:
            self.problem(f"{what} must be a list")

    def keys(self) -> tuple[str, ...]:
        """The keys of a mapping whose keys are data; none of anything else."""
        if not isinstance(self.node, yaml.MappingNode):
            return ()
        return tuple(str(key.value) for key, _ in self.node.value)

    def fields(self, what: str, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, "Item"]:
        """The values of a mapping by key; unknown, repeated and missing keys are problems. Nulls are left out."""
        if not isinstance(self.node, yaml.MappingNode):
            self.problem(f"{what} must be a mapping of {', '.join(known)}")
            return {}
        found: dict[str, Item] = {}
        for key_node, value_node in self.node.value:
            key, name = Item(key_node, self.problems), str(key_node.value)
            if name not in set(known):
                key.problem(f'{what} has no key "{name}"', suggestion(name, known) or f"known: {', '.join(known)}")
            elif name in found:
                key.problem(f'{what} has the key "{name}" twice')
            else:
                found[name] = Item(value_node, self.problems)
        for name in required:
            if name not in found or found[name].is_null:
                self.problem(f'{what} needs "{name}"')
        return {name: item for name, item in found.items() if not item.is_null}


def read_yaml(path: Path) -> Item:
    """The document in `path`. Raises ConfigurationError for a missing file or text that is no YAML."""
    try:
        with path.open("rb") as stream:
            node = yaml.compose(stream, Loader=_Loader)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigurationError(f"is not YAML: {error.problem}", file=str(path), line=line) from error
    except yaml.YAMLError as error:
        raise ConfigurationError("is not YAML", file=str(path)) from error
    if node is None:
        raise ConfigurationError("is empty", file=str(path))
    return Item(node, Problems(path))
