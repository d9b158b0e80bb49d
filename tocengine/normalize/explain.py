"""Owns the answer to "what did you make of my message?": for each output element the fields and table rows behind it.

It is found by experiment: the message is normalized as it is, and again for every value in it with that one value left
out or altered; what then differs, the value had made. What no single component makes, its whole field or segment may.
So the answer cannot drift from the rules, and the rules know nothing of it. A message takes some 200 ms, which is for
people, not for the way of a message.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TypeVar

import msgspec
import orjson

from tocengine.errors import RefusedError
from tocengine.formats.fhir.resources import Json
from tocengine.formats.hl7v2.parser import HL7Message, parse
from tocengine.formats.hl7v2.segments import Segment
from tocengine.model.event import EventRecord
from tocengine.model.ids import MessageId, derive
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.normalize.normalizer import HL7v2Normalizer

READ = frozenset("MSH EVN PID PD1 PV1 PV2 ROL PRT DG1 AL1 IAM IN1 NK1 MRG OBX PR1 ZBE ARV CON".split())
"""Segments some rule reads; values of others are listed as not used without an experiment each."""
_FIXED = frozenset({("MSH", 1), ("MSH", 2), ("MSH", 9), ("MSH", 12), ("MSH", 18)})
"""Fields that say how to read the rest: without them there is no message to compare with."""
_OWN = frozenset({"message_id", "feed", "facility", "content_type", "control_id", "message_day", "received_at"})
"""Parts of the event that no field of the message decides (or that only name the transmission)."""

RowT = TypeVar("RowT")
Outcome = Mapping[str, str]


class TableRow(msgspec.Struct, frozen=True, order=True):
    """A lookup: `code` in `table` (`normalize/tables`, or a map of the feed's profile), and whether it has a row."""

    table: str
    code: str
    found: bool


class Element(msgspec.Struct, frozen=True):
    """One value the engine made: `path` as ``Encounter.status``, `fields` as ``PV1-36`` or ``PID-3(1).1``."""

    path: str
    value: str
    fields: tuple[str, ...]
    rows: tuple[TableRow, ...] = ()


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine makes of one message. Holds PHI: it is shown to a person, never logged."""

    trigger: str = ""
    handled: bool = False
    elements: tuple[Element, ...] = ()
    flags: tuple[Element, ...] = ()  # path is the flag
    unused: tuple[str, ...] = ()  # values that changed nothing here; MSH is the door's, which reads all of it
    problem: Problem | None = None  # it would go to quarantine
    records: tuple[EventRecord, ...] = ()


class _Recorded(dict[str, RowT]):
    """A table that notes what is looked up in it."""

    def __init__(self, table: str, rows: Mapping[str, RowT], notes: set[TableRow]) -> None:
        super().__init__(rows)
        self._table, self._notes = table, notes

    def get(self, code: str, default: RowT | None = None) -> RowT | None:  # type: ignore[override]
        """As of any mapping."""
        self._notes.add(TableRow(self._table, code, code in self))
        return super().get(code, default)


class _Bench:
    """Normalizes variants of one message and says what came of each."""

    def __init__(self, source: Source, message: Message) -> None:
        self._notes: set[TableRow] = set()
        self._normalizer = HL7v2Normalizer(source, self._wrap)
        self._message = message
        self._labels: dict[str, str] = {}
        self.records: tuple[EventRecord, ...] = ()

    def _wrap(self, table: str, rows: Mapping[str, RowT]) -> Mapping[str, RowT]:
        return _Recorded(table, rows, self._notes)

    def run(self, body: bytes) -> tuple[Outcome, frozenset[TableRow]]:
        """Output elements by path, and the table lookups. Raises RefusedError."""
        self._notes.clear()
        self.records = tuple(self._normalizer.normalize(msgspec.structs.replace(self._message, body=body)))
        outcome: dict[str, str] = {}
        for record in self.records:
            part = f"({record.summary.part + 1})" if len(self.records) > 1 else ""
            summary = msgspec.to_builtins(record.summary)
            for name in _OWN:
                summary.pop(name, None)
            for flag in summary.pop("flags", ()):
                outcome[f"flag:{flag}"] = flag
            outcome.update(_flat(summary, f"summary{part}"))
            outcome.update(self._resources(orjson.loads(bytes(record.fhir)), part))
        return outcome, frozenset(self._notes)

    def _resources(self, bundle: Json, part: str) -> Iterator[tuple[str, str]]:
        entries = bundle.get("entry") if isinstance(bundle, dict) else None
        found = [entry["resource"] for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        resources = [each for each in found if isinstance(each, dict)]
        labels = self._label(resources)
        for resource in resources:
            label = labels[str(resource["id"])] + part
            content = {name: each for name, each in resource.items() if name not in ("resourceType", "id")}
            for path, value in _flat(content, label):
                yield path, labels.get(value.removeprefix("urn:uuid:"), value)

    def _label(self, resources: list[dict[str, Json]]) -> dict[str, str]:
        """A name for each resource that stays when its id changes: by id, else the next unused of its type."""
        labels = {id_: self._labels[id_] for each in resources if (id_ := str(each["id"])) in self._labels}
        free = sorted(set(self._labels.values()) - set(labels.values()))
        for each in resources:
            identity, kind = str(each["id"]), str(each["resourceType"])
            if identity in labels:
                continue
            reused = next((label for label in free if label.partition("[")[0] == kind), None)
            if reused is None:
                taken = sum(label.partition("[")[0] == kind for label in labels.values())
                reused = f"{kind}[{taken + 1}]" if taken else kind
            else:
                free.remove(reused)
            labels[identity] = reused
        if not self._labels:
            self._labels = labels
        return labels


def sample(body: bytes, source: Source, received_at: datetime) -> Message:
    """`body` as a message of the feed of `source`; nobody sent it."""
    return Message(
        message_id=MessageId(derive("sample", body)),
        feed=source.feed,
        facility=source.facility.id,
        content_type=ContentType.HL7V2,
        control_id="",
        received_at=received_at,
        body=body,
    )


def explain(body: bytes, source: Source, received_at: datetime) -> Explanation:
    """How each element of what the engine makes of `body` came about. Pure; never raises for what a message holds."""
    bench = _Bench(source, sample(body, source, received_at))
    try:
        outcome, lookups = bench.run(body)
    except RefusedError as error:
        return Explanation(problem=error.problem)
    records = bench.records
    hl7 = parse(body, source.profile.charset_default)
    fields: dict[str, list[str]] = {}
    rows: dict[str, set[TableRow]] = {}
    unused: list[str] = []
    for experiment in (*_values(hl7), *_wholes(hl7)):
        changed, decided = _run(bench, experiment.variants, outcome, lookups)
        if experiment.whole:
            changed = [path for path in changed if path not in fields]
        elif not changed and not experiment.place.startswith("MSH-"):
            unused.append(experiment.place)
        for path in changed:
            fields.setdefault(path, []).append(experiment.place)
            rows.setdefault(path, set()).update(decided)
    made = [
        Element(path, value, tuple(fields.get(path, ())), tuple(sorted(rows.get(path, ()))))
        for path, value in outcome.items()
    ]
    return Explanation(
        trigger=records[0].summary.trigger,
        handled=records[0].summary.handled,
        elements=tuple(each for each in made if not each.path.startswith("flag:")),
        flags=tuple(
            Element(each.value, each.value, each.fields, each.rows) for each in made if each.path.startswith("flag:")
        ),
        unused=tuple(unused),
        records=records,
    )


class _Experiment(msgspec.Struct, frozen=True):
    """Bodies that lack or alter what is at `place`; `whole` is a field or segment, asked when its parts are not it."""

    place: str
    variants: tuple[bytes, ...] = ()
    whole: bool = False


def _run(
    bench: _Bench, variants: tuple[bytes, ...], outcome: Outcome, lookups: frozenset[TableRow]
) -> tuple[list[str], frozenset[TableRow]]:
    """The paths that differ in one of the variants, and the table rows it decides."""
    changed: set[str] = set()
    decided: frozenset[TableRow] = frozenset()
    for variant in variants:
        try:
            other, others = bench.run(variant)
        except RefusedError:
            continue
        differing = {path for path, value in outcome.items() if other.get(path) != value}
        if differing:
            changed |= differing
            decided |= frozenset(
                row for row in lookups - others if row.found or not row.table.startswith("placeholder")
            )
    return [path for path in outcome if path in changed], decided


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{position}]")
    else:
        yield path, str(value)


def _values(hl7: HL7Message) -> Iterator[_Experiment]:
    """Every value of the message."""
    lines = [segment.raw for segment in hl7]
    for index, segment in enumerate(hl7):
        for number in range(1, len(segment) + 1):
            if not segment[number].raw or (segment.name, number) in _FIXED:
                continue
            if segment.name not in READ:
                yield _Experiment(f"{_name(segment)}-{number}")
                continue
            for place, forms in _pieces(segment, number, hl7):
                bodies = (_joined(lines, index, _replaced(segment, number, raw, hl7), hl7.codec) for raw in forms)
                yield _Experiment(place, tuple(bodies))


def _wholes(hl7: HL7Message) -> Iterator[_Experiment]:
    """The trigger, whole fields, and whole segments."""
    lines = [segment.raw for segment in hl7]
    for index, segment in enumerate(hl7):
        if segment.name not in READ:
            continue
        if segment.name == "MSH":
            other = "ADT^A01" if segment[9].component(2) == "A08" else "ADT^A08"
            other = other.replace("^", hl7.delimiters.component)
            body = _joined(lines, index, _replaced(segment, 9, other, hl7), hl7.codec)
            yield _Experiment("MSH-9", (body,), whole=True)
            continue
        for number in range(1, len(segment) + 1):
            if len(segment[number].components) > 1:
                body = _joined(lines, index, _replaced(segment, number, "", hl7), hl7.codec)
                yield _Experiment(f"{_name(segment)}-{number}", (body,), whole=True)
        yield _Experiment(_name(segment), (_joined(lines, index, "", hl7.codec),), whole=True)


def _name(segment: Segment) -> str:
    return segment.name if segment.occurrence == 1 else f"{segment.name}({segment.occurrence})"


def _pieces(segment: Segment, number: int, hl7: HL7Message) -> Iterator[tuple[str, tuple[str, str]]]:
    """The valued components of a field: place, and the field without and with another value there."""
    delimiters = hl7.delimiters
    raw = segment[number].raw
    repetitions = raw.split(delimiters.repetition) if delimiters.repetition else [raw]
    for at, repetition in enumerate(repetitions):
        components = repetition.split(delimiters.component) if delimiters.component else [repetition]
        for position, component in enumerate(components):
            if not component:
                continue
            place = f"{_name(segment)}-{number}"
            if len(repetitions) > 1:
                place += f"({at + 1})"
            if len(components) > 1:
                place += f".{position + 1}"

            def form(changed: str, at: int = at, position: int = position, parts: list[str] = components) -> str:
                changed_parts = [*parts[:position], changed, *parts[position + 1 :]]
                whole = [*repetitions[:at], delimiters.component.join(changed_parts), *repetitions[at + 1 :]]
                return delimiters.repetition.join(whole)

            yield place, (form(""), form(_altered(component)))


def _altered(value: str) -> str:
    """Another value of the same kind: another day for a time, a code nobody has for anything else."""
    if len(value) >= 8 and value[:8].isdigit():
        return value[:6] + ("12" if value[6:8] == "11" else "11") + value[8:]
    return "9" + value


def _replaced(segment: Segment, number: int, raw: str, hl7: HL7Message) -> str:
    separator = hl7.delimiters.field
    parts = segment.raw.split(separator)
    parts[number - 1 if segment.name == "MSH" else number] = raw
    return separator.join(parts)


def _joined(lines: list[str], index: int, line: str, codec: str) -> bytes:
    return "\r".join([*lines[:index], line, *lines[index + 1 :], ""]).encode(codec, "replace")
