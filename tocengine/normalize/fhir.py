"""Owns what a FHIR Bundle means: each encounter it speaks of becomes canonical events (`fhir_trigger` says which)."""

from collections.abc import Sequence
from datetime import UTC, timedelta

import msgspec
import orjson

from tocengine.errors import ContentError, SetAsideError
from tocengine.formats.fhir.checks import found_in
from tocengine.formats.fhir.fitness import fit
from tocengine.formats.fhir.incoming import Notification, read_notifications
from tocengine.formats.fhir.json_body import parse_json
from tocengine.formats.fhir.resources import TERMINOLOGY, Json, Resource, collection
from tocengine.formats.fhir.schema import received_validator
from tocengine.formats.fhir.subscriptions import EVENTS, is_subscription_bundle, read_status
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
from tocengine.normalize.fhir_trigger import OPEN, triggers_of
from tocengine.normalize.fhir_values import Reader, domains_by_system
from tocengine.normalize.go_live import GoLive

FUTURE_TOLERANCE = timedelta(hours=24)
_HTEST = TERMINOLOGY + "v3-ActReason", "HTEST"


class FhirNormalizer:
    """ports.Normalizer for one feed with protocol "fhir"."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._zone = zone(source.profile.time_zone)
        self._codes = codes_for(source)
        self._domains = domains_by_system(source.domains)
        self._go_live = GoLive(source.profile)

    def normalize(self, message: Message) -> Sequence[EventRecord]:
        """The events of every encounter the body speaks of, each with the next `part`.

        Raises SyntaxRefusedError where the body is no Bundle that is taken, ContentError where it lacks the patient's
        or the visit's identifier, SetAsideError for a subscription notification without the resources it is about.
        """
        sent = parse_json(message.body)
        bundle = fit(sent)
        notifications = read_notifications(bundle)
        if not notifications and is_subscription_bundle(bundle):
            _refuse_without_resources(bundle)
        found: list[EventRecord] = []
        for notification in notifications:
            found += self._events(notification, sent, message, len(found))
        return found

    def _events(self, notification: Notification, sent: Resource, message: Message, part: int) -> list[EventRecord]:
        reader = Reader(notification, self._source, self._codes, self._domains, self._zone, message.received_at)
        patient_key, patient = read_patient(reader)
        if patient_key is None:
            raise _missing("patient_identifier_missing", "No identifier with a system.", notification.patient_path)
        visit_key, encounter = read_encounter(reader)
        if visit_key is None:
            raise _missing("visit_identifier_missing", "No identifier with a system.", notification.encounter_path)
        first, *following = triggers_of(notification, known(encounter.patient_class) or PatientClass.UNKNOWN)
        recorded = self._recorded(notification, message, reader)
        effective = _effective(first, encounter, notification, reader)
        event = Event(
            message_id=message.message_id,
            part=part,
            feed=message.feed,
            facility=message.facility,
            content_type=ContentType.FHIR,
            trigger=first or notification.event,
            control_id=message.control_id,
            message_day=recorded.at.astimezone(UTC).date().isoformat(),
            received_at=message.received_at,
            recorded=recorded,
            effective=effective,
            processing=self._go_live.processing(self._processing(notification, patient, reader), effective or recorded),
            shadow=self._source.shadow,
            handled=first in self._codes.triggers,
            patient=patient_key,
            visit=visit_key,
            patient_facts=patient,
            encounter_facts=encounter if first == "A03" else _still_open(encounter, first, reader),
            flags=_flags(first, notification, reader),
            unmapped=tuple(reader.unmapped),
        )
        content = collection_of(
            notification, sent, patient_key, visit_key, self._source.facility, self._codes, message.message_id
        )
        _assert_valid(content)
        records = [EventRecord(summary=event, fhir=msgspec.Raw(content))]
        for position, trigger in enumerate(following, 1):
            records.append(_followed(event, trigger, position, handled=trigger in self._codes.triggers))
        return records

    def _recorded(self, notification: Notification, message: Message, reader: Reader) -> Timestamp:
        """Bundle.timestamp; the time of receipt where there is none, or it is more than 24 h ahead."""
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


_NOTHING = orjson.dumps(collection([]))


def _followed(event: Event, trigger: str, position: int, *, handled: bool) -> EventRecord:
    """What comes right after `event`, of the same message, and has no content of its own."""
    summary = msgspec.structs.replace(
        event,
        part=event.part + position,
        trigger=trigger,
        handled=handled,
        effective=None,
        sequence=(event.sequence or 0) + position,  # so that it stays behind in the canonical order
        unmapped=(),
        flags=(),
    )
    return EventRecord(summary=summary, fhir=msgspec.Raw(_NOTHING))


def _effective(trigger: str, encounter: EncounterFacts, notification: Notification, reader: Reader) -> Timestamp | None:
    """When what the trigger says happened; None where the notification states it nowhere (then its recording counts).

    The target of a cancellation is not stated in FHIR: None names the last one.
    """
    if trigger == "A03":
        return known(encounter.discharged)
    if trigger == "A01":
        return _class_change(notification.encounter, reader) or known(encounter.admitted)
    if trigger == "A04":
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
    if trigger == "A03" and status in OPEN:
        reader.flag("status_contradicts_event")
    return tuple(sorted(reader.flags))


def _assert_valid(content: bytes) -> None:
    """What goes to the log can be told again, whatever was made of what came. Raises SetAsideError: our defect."""
    resources = [item["resource"] for item in orjson.loads(content).get("entry", ())]
    if received_validator().is_valid(resources):
        return
    for error in received_validator().iter_errors(resources):
        rule = found_in("Bundle.entry", error, error.instance_path).rule
        text = f"What was made of it is not valid FHIR: {rule}"
        raise SetAsideError(Problem(reason="bundle_invalid", text=text, location="Bundle", code="processing"))


def _missing(reason: str, text: str, path: str) -> ContentError:
    return ContentError(Problem(reason=reason, text=text, location=path + ".identifier", code="required"))


def _refuse_without_resources(bundle: Resource) -> None:
    """A subscription that was asked for ids only tells that something happened, and not what."""
    if read_status(bundle).type == EVENTS:
        text = "The notification carries no Encounter with its Patient: its subscription sends too little."
        raise SetAsideError(Problem(reason="resources_not_sent", text=text, location="Bundle.entry", code="incomplete"))
