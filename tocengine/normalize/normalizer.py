"""Owns the order of the rules: one HL7 v2 ADT message in, one canonical event per patient out. Pure.

The trigger's row (`tables/trigger.toml`) says what a message is about, and so which rules run; a rule for another
segment is a function in `rules/` and a row of `CONTENT`. What cannot be normalized is refused with its place.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from tocengine.errors import ConfigurationError
from tocengine.formats.fhir import facts as fhir
from tocengine.formats.fhir.ids import encounter_id
from tocengine.formats.fhir.resources import RESTRICTED, Resource
from tocengine.formats.hl7v2.datatypes import HD
from tocengine.formats.hl7v2.parser import HL7Message, parse
from tocengine.formats.hl7v2.segments import Segment
from tocengine.formats.hl7v2.time import zone
from tocengine.model.event import Event, EventRecord, Merge, Rekeying
from tocengine.model.facts import EncounterFacts, Mark, PatientFacts, standing
from tocengine.model.identity import Identifier
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import VISIT_KEYS, Source
from tocengine.normalize.codes import Codes, Wrap, codes_for, plain
from tocengine.normalize.go_live import GoLive
from tocengine.normalize.output import bundle
from tocengine.normalize.reading import Reading, refuse
from tocengine.normalize.rules import (
    allergies,
    contacts,
    coverage,
    diagnoses,
    encounter,
    header,
    merge,
    movements,
    observations,
    patient,
    privacy,
    procedures,
    provenance,
    roles,
    snapshots,
)
from tocengine.normalize.z_paths import filled

ALLERGIES: Sequence[tuple[str, Callable[[Reading], None]]] = (
    ("AL1", allergies.read),
    ("IAM", allergies.read_changes),
)
CONTENT = (
    *ALLERGIES,
    ("IN1", coverage.read),
    ("NK1", contacts.read),
    ("OBX", observations.read),
    ("PR1", procedures.read),
    ("ROL", roles.read),
    ("PRT", roles.read_participations),
)
"""Segments that are only exchanged, not routed on, and the rule that reads each."""
_SHARED = ("MSH", "EVN", "SFT", "UAC")


class HL7v2Normalizer:
    """Normalizes the messages of one feed. Holds tables, and what `Reading.once` found; the same message gives the same
    events whatever came between."""

    def __init__(self, source: Source, wrap: Wrap = plain) -> None:
        """Raises ConfigurationError for an unknown time zone or visit key field."""
        self.source = source
        self.codes: Codes = codes_for(source, wrap)
        self.zone = zone(source.profile.time_zone)
        self._known: dict[Hashable, object] | None = {} if wrap is plain else None  # lookups are watched
        profile = source.profile
        self._visit_key = _visit_key_field("PID-18" if profile.account_is_visit else profile.visit_key)
        self._go_live = GoLive(profile)
        self._facility: Resource = fhir.sending_facility(source.facility)

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """One event per patient the message is about.

        Raises RefusedError: SyntaxRefusedError for bytes that are no HL7 v2, UnsupportedError for another message
        type, ContentError for a movement without patient or visit and a merge without its two sides.
        """
        body = message.body if self.source.profile.null_policy == "delete" else without_nulls(message.body)
        hl7 = parse(body, self.source.profile.charset_default)
        if self.source.profile.z_paths:
            hl7 = filled(hl7, self.source.profile.z_paths)
        groups = _patient_groups(hl7)
        if groups is None:
            return (self._one(message, hl7, None, 0),)
        return tuple(self._one(message, hl7, group, part) for part, group in enumerate(groups))

    def _one(
        self, message: Message, hl7: HL7Message, group: Mapping[str, list[Segment]] | None, part: int
    ) -> EventRecord:
        reading = Reading(message, hl7, self.source, self.codes, self.zone, group, self._known)
        msh, evn = reading.segment("MSH"), reading.segment("EVN")
        reading.sender = HD.read(msh[4]).namespace
        reading.trigger, flags = header.read_trigger(msh, evn)
        for flag in flags:
            reading.flag(flag)
        reading.row = self.codes.triggers.get(reading.trigger)
        recorded = header.read_recorded(reading, msh, evn)
        known = self._identify(reading, part)
        merges, rekeying, patient_facts, encounter_facts = self._content(reading, known)
        effective = header.read_effective(reading, evn)
        if reading.encounter or reading.patient:
            reading.add(self._facility)
            provenance.read(reading, evn, recorded, part)
        summary = Event(
            message_id=message.message_id,
            part=part,
            feed=message.feed,
            facility=message.facility,
            content_type=ContentType.HL7V2,
            trigger=reading.trigger,
            control_id=message.control_id,
            message_day=header.message_day(reading),
            received_at=message.received_at,
            recorded=recorded,
            effective=effective,
            sequence=header.read_sequence(msh),
            processing=self._go_live.processing(header.read_processing(reading, msh), effective or recorded),
            shadow=self.source.shadow,
            handled=reading.row is not None and reading.row.kind != "stored",
            patient=reading.patient_key,
            visit=reading.visit,
            merges=merges,
            rekeying=rekeying,
            movement=movements.read(reading) if reading.row and hl7.segments("ZBE") else None,
            patient_facts=patient_facts,
            encounter_facts=encounter_facts,
            cleared=tuple(reading.cleared),
            flags=tuple(reading.flags),
            unmapped=tuple(reading.unmapped),
        )
        return EventRecord(summary=summary, fhir=msgspec.Raw(bundle(reading)))

    def _identify(self, reading: Reading, part: int) -> tuple[Identifier, ...]:
        """Sets the keys of patient and visit. Raises ContentError for a movement that lacks one of them."""
        known = patient.read_key(reading, reading.segment("PID"))
        name, number = self._visit_key
        reading.visit = reading.visit_key(reading.segment(name)[number])
        if reading.visit is not None:
            reading.encounter_id = encounter_id(reading.visit)
        row = reading.row
        if row is None or row.kind == "stored":
            return known
        if row.kind == "identity":
            reading.visit, reading.encounter_id = None, ""  # it speaks of keys; no visit moves by it
        if reading.patient_key is None:
            raise refuse("patient_id_missing", "No medical record number identifies the patient", f"PID^{part + 1}^3")
        if row.kind == "movement" and reading.visit is None:
            raise refuse("visit_key_missing", "A movement names no visit", f"{name}^{part + 1}^{number}")
        return known

    def _content(
        self, reading: Reading, known: tuple[Identifier, ...]
    ) -> tuple[tuple[Merge, ...], Rekeying | None, PatientFacts | UnsetType, EncounterFacts | UnsetType]:
        row = reading.row
        if row is None or row.kind == "stored":
            return (), None, UNSET, UNSET
        patient_facts = patient.read(reading, reading.segment("PID"), known)
        merges, rekeying = merge.read(reading) if row.kind == "identity" else ((), merge.renumbered(reading))
        encounter_facts: EncounterFacts | UnsetType = UNSET
        if reading.visit is not None and row.kind != "allergies":
            reading.add(self._facility)
            encounter_facts = encounter.read(reading, reading.segment("PV1"), reading.segment("PID"))
            encounter_facts = diagnoses.read(reading, encounter_facts)
            if row.kind == "tracking":  # on the way somewhere: where the patient lies stays as it is known
                encounter_facts = msgspec.structs.replace(encounter_facts, location=UNSET)
        patient_facts, encounter_facts = privacy.read(reading, patient_facts, encounter_facts)
        if isinstance(encounter_facts, EncounterFacts) and Mark.VISIT_PROTECTION in standing(encounter_facts):
            reading.encounter["meta"] = {"security": [RESTRICTED]}
        for name, rule in ALLERGIES if row.kind == "allergies" else CONTENT:
            if reading.segments(name):
                rule(reading)
        snapshots.mark(reading)
        return merges, rekeying, patient_facts, encounter_facts


def without_nulls(body: bytes) -> bytes:
    """`body` with every field that is ``""`` empty: of senders that do not mean "delete" by it."""
    separator = body[3:4] if body.startswith(b"MSH") else b"|"
    escaped = re.escape(separator)
    return re.sub(escaped + rb'""(?=' + escaped + rb"|[\r\n]|$)", lambda _: separator, body)


def _visit_key_field(path: str) -> tuple[str, int]:
    name, _, number = path.partition("-")
    if path not in VISIT_KEYS:
        raise ConfigurationError(f"visit_key {path!r}", hint=", ".join(VISIT_KEYS))
    return name, int(number)


def _patient_groups(hl7: HL7Message) -> list[dict[str, list[Segment]]] | None:
    """The segments of each patient where a message has several (A17, A40); None where it has one.

    A PID that repeats another word for word, and has nothing behind it, is no other patient.
    """
    if len(hl7.segments("PID")) < 2:
        return None
    groups: list[dict[str, list[Segment]]] = []
    shared = {name: hl7.segments(name) for name in _SHARED}
    for segment in hl7:
        if segment.name == "PID":
            groups.append({name: list(found) for name, found in shared.items()})
        if groups and segment.name not in _SHARED:
            groups[-1].setdefault(segment.name, []).append(segment)
    return _told_once(groups)


def _told_once(groups: Sequence[dict[str, list[Segment]]]) -> list[dict[str, list[Segment]]] | None:
    saying_more = {group["PID"][0].raw for group in groups if _says_more(group)}
    kept: dict[str | int, dict[str, list[Segment]]] = {}
    for place, group in enumerate(groups):
        raw = group["PID"][0].raw
        if _says_more(group):
            kept[place] = group
        elif raw not in saying_more:
            kept.setdefault(raw, group)
    return list(kept.values()) if len(kept) > 1 else None


def _says_more(group: Mapping[str, list[Segment]]) -> bool:
    return bool(group.keys() - {*_SHARED, "PID"})
