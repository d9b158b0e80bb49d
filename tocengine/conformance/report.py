"""Owns the report of a file: each message through the standard's rules and the engine's own. Never fails on a message.

The engine's own rules are its normalizer's: what it refuses, and the flags it raises for codes, dates and identifiers
it cannot read, so that the report says what would happen on the feed. On top comes the minimum of a notice under the
Condition of Participation (42 CFR 482.24(d)): patient, treating practitioner and sending institution by name.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from msgspec import UNSET

from tocengine.conformance.findings import Finding, Report, Severity
from tocengine.conformance.structure import structure_findings
from tocengine.errors import RefusedError
from tocengine.formats import hl7v2
from tocengine.formats.hl7v2.ack import Sent, read_sent
from tocengine.formats.hl7v2.batch import is_batch, read_batch
from tocengine.formats.hl7v2.files import messages_in
from tocengine.model.event import Event
from tocengine.model.message import Problem
from tocengine.model.profile import Source
from tocengine.normalize.explain import sample
from tocengine.normalize.normalizer import HL7v2Normalizer

NOTIFIED: Final = ("A01", "A03", "A04", "A06")
"""Movements that may lead to a notice the Condition of Participation asks for."""

_TEXTS: Final = {
    "unmapped": "a code no table of the feed knows",
    "unreadable": "no time of the calendar",
    "unresolved": "a reference that leads to nothing in the message",
    "npi_invalid": "a number that is no NPI",
    "retired": "a retired code",
    "repeated": "several values where one counts; the first is taken",
    "implausible": "a date of birth that nobody has",
    "placeholder": "a number or name that only fills the field",
    "clock_ahead": "recorded more than 24 h ahead of now",
    "trigger_mismatch": "EVN-1 is not the trigger of MSH-9",
    "tz_assumed": "a time that its zone has twice or not at all",
    "discharge_before_admit": "discharged before admitted",
    "still_patient": "a disposition that says the patient is still here",
    "charset_unknown": "a character set nobody knows",
    "charset_mismatch": "the bytes are not in the character set that is announced",
    "replaced_characters": "characters that could not be read",
    "delimiters_missing": "fewer than four encoding characters",
}
_PLACES: Final = {
    "trigger_mismatch": "EVN^1^1",
    "clock_ahead": "EVN^1^2",
    "discharge_before_admit": "PV1^1^45",
    "still_patient": "PV1^1^36",
    "charset_unknown": "MSH^1^18",
    "charset_mismatch": "MSH^1^18",
    "replaced_characters": "MSH^1^18",
    "delimiters_missing": "MSH^1^2",
}


def check_file(name: str, content: bytes, source: Source, now: datetime) -> Iterator[Report]:
    """A report per message of a file: single, several, framed, or a batch. A broken batch is one report."""
    number = 0
    for body in messages_in(content) or [content]:
        messages: tuple[bytes, ...] = (body,)
        if is_batch(body):
            try:
                messages = tuple(message for group in read_batch(body).groups for message in group.messages)
            except RefusedError as error:
                number += 1
                yield Report(name, number, "batch", "", (_refused(error.problem),))
                continue
            if not messages:
                number += 1
                yield Report(name, number, "batch", "", (_warning("batch_empty", "BHS^1", "it holds no message"),))
        for message in messages:
            number += 1
            yield check_message(name, number, message, source, now)


def check_message(name: str, number: int, body: bytes, source: Source, now: datetime) -> Report:
    """The report of one message, read as the feed of `source` would; `now` stands for its receipt."""
    sent = read_sent(body)
    kind = "^".join(part.decode("ascii", "replace") for part in (sent.component(9, 1), sent.component(9, 2)) if part)
    findings = [*_header(sent), *_own(body, source, now)]
    try:
        message = hl7v2.parse(body, source.profile.charset_default)
    except RefusedError:  # said by `_own`
        return Report(name, number, kind[:20], "", tuple(findings))
    findings += structure_findings(message)
    version = message.get("MSH-12.1").strip()[:8]
    return Report(name, number, kind[:20], version, tuple(sorted(findings, key=lambda each: each.severity)))


def _header(sent: Sent) -> Iterator[Finding]:
    if not sent.readable:
        yield _error("control_id_missing", "MSH^1^10", "without it no answer can be told apart")


def _own(body: bytes, source: Source, now: datetime) -> Iterator[Finding]:
    """What the engine would refuse, what it would flag, and what a notice would lack."""
    try:
        records = HL7v2Normalizer(source).normalize(sample(body, source, now))
    except RefusedError as error:
        yield from map(_refused, (error.problem, *error.others))
        return
    for record in records:
        event = record.summary
        yield from map(_flagged, event.flags)
        for unmapped in event.unmapped:
            yield _warning("code", unmapped.table, f"{unmapped.code!r} is not mapped for this feed")
        if not event.handled:
            yield _warning("trigger", "MSH^1^9^1^2", "stored, and not acted on")
        if event.trigger in NOTIFIED:
            yield from _notice_minimum(event, source)


def _notice_minimum(event: Event, source: Source) -> Iterator[Finding]:
    patient, visit = event.patient_facts, event.encounter_facts
    part = event.part + 1
    if patient is UNSET or not patient.names:
        yield _error("cop_patient_name", f"PID^{part}^5", "a notice must name the patient")
    if visit is UNSET or not visit.treating or not visit.treating.family:
        yield _error("cop_practitioner_name", f"PV1^{part}^7", "a notice must name the treating practitioner")
    if not source.facility.name:
        yield _error("cop_institution_name", "", "the facility of this feed has no name")
    if patient is UNSET or not patient.birth_date:
        yield _warning("birth_date", f"PID^{part}^7", "panels match patients by it")
    if event.trigger == "A03" and visit is not UNSET:
        if not visit.disposition:
            yield _warning("disposition", f"PV1^{part}^36", "nobody can be told where the patient goes")
        if not visit.destination:
            yield _warning("destination", f"PV1^{part}^37", "the facility the patient goes to is not named")
        if event.effective is None:
            yield _warning("discharge_time", f"PV1^{part}^45", "the discharge counts from when it was recorded")


def _flagged(flag: str) -> Finding:
    name, _, field = flag.partition(":")
    return _warning(name, field or _PLACES.get(name, ""), _TEXTS.get(name, name.replace("_", " ")))


def _refused(problem: Problem) -> Finding:
    return _error(problem.reason, problem.location, problem.text)


def _error(rule: str, location: str, text: str) -> Finding:
    return Finding(Severity.ERROR, rule, location, text)


def _warning(rule: str, location: str, text: str) -> Finding:
    return Finding(Severity.WARNING, rule, location, text)
