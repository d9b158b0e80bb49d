"""Owns what a FHIR notification means: a Da Vinci admit, discharge or transfer bundle to the canonical event.

The event gets the HL7 v2 trigger it is equivalent to, so that tracking knows one vocabulary:

=============================  ====================================================  ========
notification event             Encounter                                             trigger
=============================  ====================================================  ========
any of the three               status cancelled, entered-in-error                    A11
admit                          status planned, or class PRENC                        A05
admit                          class inpatient or observation                        A01
admit                          any other class (EMER: ED registration)               A04
discharge                      open status, and no period.end and no disposition     A13
discharge                      otherwise                                             A03
transfer                       finished, or has period.end, disposition, destination A03
transfer                       open, class inpatient or observation                  A06
transfer                       open, any other class                                 A02
=============================  ====================================================  ========

There is no code for cancelling a discharge (domain 4.1); an open encounter under a discharge event without anything
that a discharge states is read as one. A transfer notification is never sent for a bed move, so an open inpatient is
one who came from the ED: A06, which on a visit known as inpatient is an update. Any other code of the Da Vinci code
system is stored and marked as not handled yet.
"""

from collections.abc import Sequence
from datetime import UTC, timedelta

import msgspec

from tocengine.errors import ContentError
from tocengine.formats.fhir.incoming import Notification, read_json, read_notification
from tocengine.formats.fhir.resources import TERMINOLOGY, Json, Resource
from tocengine.formats.hl7v2.time import zone
from tocengine.model.event import Event, EventRecord, Processing
from tocengine.model.facts import EncounterFacts, PatientClass, PatientFacts, known
from tocengine.model.message import ContentType, Message, Problem
from tocengine.model.profile import Source
from tocengine.model.time import Timestamp
from tocengine.normalize.codes import codes_for
from tocengine.normalize.fhir_content import collection_of
from tocengine.normalize.fhir_encounter import read_encounter
from tocengine.normalize.fhir_patient import read_patient
from tocengine.normalize.fhir_values import Reader, domains_by_system

ADMIT, DISCHARGE, TRANSFER = "notification-admit", "notification-discharge", "notification-transfer"
FUTURE_TOLERANCE = timedelta(hours=24)
_VOID = frozenset({"cancelled", "entered-in-error"})
_OPEN = frozenset({"planned", "arrived", "triaged", "in-progress", "onleave"})
_IN_BED = frozenset({PatientClass.INPATIENT, PatientClass.OBSERVATION})
_HTEST = TERMINOLOGY + "v3-ActReason", "HTEST"


class FhirNormalizer:
    """ports.Normalizer for one feed with protocol "fhir"."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._zone = zone(source.profile.time_zone)
        self._codes = codes_for(source)
        self._domains = domains_by_system(source.domains)

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """One event. Raises SyntaxRefusedError where the body is no notification, ContentError where it lacks the
        patient's or the visit's identifier."""
        notification = read_notification(read_json(message.body))
        reader = Reader(notification, self._source, self._codes, self._domains, self._zone, message.received_at)
        patient_key, patient = read_patient(reader)
        if patient_key is None:
            raise _missing("patient_identifier_missing", "No identifier with a system.", notification.patient_path)
        visit_key, encounter = read_encounter(reader)
        if visit_key is None:
            raise _missing("visit_identifier_missing", "No identifier with a system.", notification.encounter_path)
        trigger = trigger_of(notification, known(encounter.patient_class) or PatientClass.UNKNOWN)
        recorded = self._recorded(notification, message, reader)
        event = Event(
            message_id=message.message_id,
            feed=message.feed,
            facility=message.facility,
            content_type=ContentType.FHIR,
            trigger=trigger or notification.event,
            control_id=message.control_id,
            message_day=recorded.at.astimezone(UTC).date().isoformat(),
            received_at=message.received_at,
            recorded=recorded,
            effective=_effective(trigger, encounter, notification, reader),
            processing=self._processing(notification, patient, reader),
            shadow=self._source.shadow,
            handled=bool(trigger),
            patient=patient_key,
            visit=visit_key,
            patient_facts=patient,
            encounter_facts=encounter if trigger == "A03" else _still_open(encounter, trigger, reader),
            flags=_flags(trigger, notification, reader),
            unmapped=tuple(reader.unmapped),
        )
        content = collection_of(notification, patient_key, visit_key, self._source.facility, self._codes)
        return (EventRecord(summary=event, fhir=msgspec.Raw(content)),)

    def _recorded(self, notification: Notification, message: Message, reader: Reader) -> Timestamp:
        """Bundle.timestamp; the time of receipt where it is none, or more than 24 h ahead of it."""
        stated = reader.time(notification.bundle.get("timestamp"))
        received = Timestamp(message.received_at.isoformat(), message.received_at, assumed=True)
        if stated is None:
            return received
        if stated.at > message.received_at + FUTURE_TOLERANCE:
            reader.flag("recorded_in_future")
            return received
        return stated

    def _processing(self, notification: Notification, patient: PatientFacts, reader: Reader) -> Processing:
        for resource in (notification.bundle, notification.header, notification.encounter, notification.patient):
            if _HTEST in labels_of(resource):
                return Processing.TEST
        patterns = [pattern.upper() for pattern in self._source.profile.test_patient_patterns if pattern]
        for name in known(patient.names) or ():
            if any(name.family.upper().startswith(pattern) for pattern in patterns):
                reader.flag("test_patient")
                return Processing.TEST
        return Processing.PRODUCTION


def trigger_of(notification: Notification, patient_class: PatientClass) -> str:
    """The HL7 v2 trigger the notification is equivalent to; "" for an event that is not handled yet."""
    status = notification.encounter.get("status")
    if notification.event not in (ADMIT, DISCHARGE, TRANSFER):
        return ""
    if status in _VOID:
        return "A11"
    ending = _says_how_it_ended(notification.encounter)
    if notification.event == ADMIT:
        if status == "planned" or patient_class is PatientClass.PREADMIT:
            return "A05"
        return "A01" if patient_class in _IN_BED else "A04"
    if notification.event == DISCHARGE:
        return "A13" if status in _OPEN and not ending else "A03"
    if status == "finished" or ending:
        return "A03"
    return "A06" if patient_class in _IN_BED else "A02"


def labels_of(resource: Resource) -> set[tuple[str, str]]:
    """(system, code) of Resource.meta.security."""
    match resource.get("meta"):
        case {"security": [*labels]}:
            return {
                (str(label.get("system", "")), str(label.get("code", "")))
                for label in labels
                if isinstance(label, dict)
            }
    return set()


def _says_how_it_ended(encounter: Resource) -> bool:
    period, stay = encounter.get("period"), encounter.get("hospitalization")
    has_end = isinstance(period, dict) and "end" in period
    has_outcome = isinstance(stay, dict) and ("dischargeDisposition" in stay or "destination" in stay)
    return has_end or has_outcome


def _effective(trigger: str, encounter: EncounterFacts, notification: Notification, reader: Reader) -> Timestamp | None:
    """When what the trigger says happened; None where the notification states it nowhere (then its recording counts).

    The target of a cancellation is not stated in FHIR: None names the last one.
    """
    if trigger == "A03":
        return known(encounter.discharged)
    if trigger in ("A01", "A04", "A05"):
        return known(encounter.admitted)
    if trigger == "A06":
        return _class_change(notification.encounter, reader)
    return None


def _class_change(encounter: Resource, reader: Reader) -> Timestamp | None:
    history: Json = encounter.get("classHistory")
    starts = [
        reader.time(period.get("start"))
        for item in (history if isinstance(history, list) else ())
        if isinstance(item, dict) and isinstance(period := item.get("period"), dict)
    ]
    return max((start for start in starts if start), key=lambda start: start.at, default=None)


def _still_open(encounter: EncounterFacts, trigger: str, reader: Reader) -> EncounterFacts:
    """An end stated by anything but a discharge is a plan: it is not a discharge time."""
    end = known(encounter.discharged)
    if end is None or trigger == "A11":
        return encounter
    reader.flag("end_without_discharge")
    return msgspec.structs.replace(encounter, discharged=msgspec.UNSET, expected_discharge=end)


def _flags(trigger: str, notification: Notification, reader: Reader) -> tuple[str, ...]:
    status = notification.encounter.get("status")
    if status == "entered-in-error":
        reader.flag("entered_in_error")
    if trigger == "A03" and status in _OPEN:
        reader.flag("status_contradicts_event")
    return tuple(sorted(reader.flags))


def _missing(reason: str, text: str, path: str) -> ContentError:
    return ContentError(Problem(reason=reason, text=text, location=path + ".identifier", code="required"))
