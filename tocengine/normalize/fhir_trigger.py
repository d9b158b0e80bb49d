"""Owns which HL7 v2 trigger what a FHIR Bundle says of an encounter is equivalent to, so that tracking knows one
vocabulary.

A Da Vinci notification says what happened:

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

A transaction, a subscription notification and a document say how things are:

=============================  ====================================================  ========
Encounter.status               and                                                   trigger
=============================  ====================================================  ========
cancelled, entered-in-error                                                          A11
planned                        (or class PRENC while open)                           A05
arrived, triaged, in-progress  class inpatient or observation                        A01
arrived, triaged, in-progress  any other class                                       A04
onleave                                                                              A21
finished                       (in a document: with period.end or a disposition)     A03
unknown                                                                              A08
=============================  ====================================================  ========

A document speaks of an encounter after the fact: unless it states the end, it updates (A08) and opens nothing. An
open encounter that its sender wrote over (PUT) is open now, so that a discharge known before did not stand: an A13
follows, which does nothing where there was none. An encounter that is merely created (POST) cancels nothing.
"""

from tocengine.formats.fhir.incoming import BundleKind, Notification
from tocengine.formats.fhir.resources import Resource
from tocengine.model.facts import PatientClass

ADMIT, DISCHARGE, TRANSFER = "notification-admit", "notification-discharge", "notification-transfer"
OPEN = frozenset({"planned", "arrived", "triaged", "in-progress", "onleave"})
_PRESENT = frozenset({"arrived", "triaged", "in-progress"})
_VOID = frozenset({"cancelled", "entered-in-error"})
_IN_BED = frozenset({PatientClass.INPATIENT, PatientClass.OBSERVATION})


def triggers_of(notification: Notification, patient_class: PatientClass) -> tuple[str, ...]:
    """The trigger, and what follows it; ("",) for an event that is not handled yet."""
    if notification.kind is BundleKind.MESSAGE:
        return (_of_event(notification, patient_class),)
    trigger = _of_state(notification, patient_class)
    if notification.replaces and notification.encounter.get("status") in _PRESENT and trigger != "A05":
        return trigger, "A13"
    return (trigger,)


def _of_event(notification: Notification, patient_class: PatientClass) -> str:
    status = notification.encounter.get("status")
    if notification.event not in (ADMIT, DISCHARGE, TRANSFER):
        return ""
    if status in _VOID:
        return "A11"
    ending = says_how_it_ended(notification.encounter)
    if notification.event == ADMIT:
        if status == "planned" or patient_class is PatientClass.PREADMIT:
            return "A05"
        return "A01" if patient_class in _IN_BED else "A04"
    if notification.event == DISCHARGE:
        return "A13" if status in OPEN and not ending else "A03"
    if status == "finished" or ending:
        return "A03"
    return "A06" if patient_class in _IN_BED else "A02"


def _of_state(notification: Notification, patient_class: PatientClass) -> str:
    status = notification.encounter.get("status")
    if status in _VOID:
        return "A11"
    if notification.kind is BundleKind.DOCUMENT:
        return "A03" if status == "finished" and says_how_it_ended(notification.encounter) else "A08"
    if status == "planned" or (status in _PRESENT and patient_class is PatientClass.PREADMIT):
        return "A05"
    if status in _PRESENT:
        return "A01" if patient_class in _IN_BED else "A04"
    return {"onleave": "A21", "finished": "A03"}.get(str(status), "A08")


def says_how_it_ended(encounter: Resource) -> bool:
    """Whether it states an end, a disposition or a destination."""
    period, stay = encounter.get("period"), encounter.get("hospitalization")
    has_end = isinstance(period, dict) and "end" in period
    has_outcome = isinstance(stay, dict) and ("dischargeDisposition" in stay or "destination" in stay)
    return has_end or has_outcome
