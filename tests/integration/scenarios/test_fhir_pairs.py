"""A stay told in HL7 v2 and the same stay told in FHIR lead to the same notices, through tracking and routing."""

from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any

import msgspec
import pytest

from tests.integration.scenarios.hospital import Hospital, Said, moment
from tests.integration.scenarios.setting import HOSPITAL, RECORDS, Setting, Told
from tests.unit.adapters.fhir.bundles import MRN_SYSTEM, NUBC, VISIT_SYSTEM, Bundle, bundle, coded, encoded, resource
from tests.unit.adapters.fhir.written import document, notification, transaction
from tocengine.delivery.channels.webhook import render_notice
from tocengine.formats.packing import unpack
from tocengine.model.directory import Level
from tocengine.model.encounter import Snapshot
from tocengine.model.ids import FeedName, MessageId, derive
from tocengine.model.message import ContentType, Message
from tocengine.model.profile import IdentifierDomain, Source, SourceProfile
from tocengine.normalize.fhir import FhirNormalizer

DOMAIN = IdentifierDomain(name="STJ", aliases=(VISIT_SYSTEM,), system=MRN_SYSTEM)
PCP = "1234567893^PATEL^RAVI^^^^MD^^NPI"
OPENED, LEFT = "2026-03-01T10:00:00-05:00", "2026-03-01T15:00:00-05:00"
Make = Callable[[Bundle], Bundle]
MAKES: dict[str, Make] = {
    "message": lambda sent: sent,
    "transaction": lambda sent: transaction(sent, "PUT"),
    "subscription": notification,
}


def sent(clock: str, event: str, status: str, kind: str = "IMP", *, to: str = "", disposition: str = "") -> Bundle:
    """What the hospital says at `clock`."""
    period: Bundle = {"start": OPENED} | ({"end": LEFT} if status == "finished" else {})
    stay: Bundle = {"dischargeDisposition": coded(NUBC, disposition)} if disposition else {}
    if to:
        stay["destination"] = {"reference": "urn:uuid:dest"}
    made = bundle(event, status, kind, period=period, hospitalization=stay or None)
    if to:
        next(e["resource"] for e in made["entry"] if e["resource"]["id"] == "dest")["name"] = to
    resource(made, "Patient")["generalPractitioner"] = [{"reference": "urn:uuid:pcp"}]
    return made | {"timestamp": moment(clock).isoformat(), "id": f"b-{clock}"}


def said(hospital: Hospital, trigger: str, clock: str, kind: str = "I", **more: Any) -> Said:
    pv1 = {44: "20260301100000-0500"} | ({45: "20260301150000-0500"} if trigger == "A03" else {})
    return hospital.says(trigger, clock, kind, visit="V500", pcp=PCP, pv1=pv1, **more)


async def hear(setting: Setting, messages: Sequence[Bundle]) -> list[Told]:
    """Each FHIR message received and routed by itself."""
    feed = FeedName("stj-fhir")
    source = Source(feed=feed, facility=HOSPITAL, profile=SourceProfile(), domains={"STJ": DOMAIN})
    told: list[Told] = []
    for each in messages:
        body = encoded(each)
        message = Message(
            message_id=MessageId(derive("message", feed, body)),
            feed=feed,
            facility=HOSPITAL.id,
            content_type=ContentType.FHIR,
            control_id=str(each["id"]),
            received_at=moment("23:00").astimezone(UTC),
            body=body,
        )
        await setting.log.append(RECORDS.events(message, FhirNormalizer(source).normalize(message)))
        told += await setting.route()
    return told


def stays(hospital: Hospital) -> dict[str, tuple[list[Said], list[Bundle]]]:
    """By name: the stay in HL7 v2, and in FHIR."""
    snf = {"to": "SUNNYSIDE REHAB", "disposition": "03"}
    to_snf = {"destination": "SUNNYSIDE REHAB", "disposition": "03"}
    return {
        "admitted, discharged to a nursing facility": (
            [said(hospital, "A01", "10:01"), said(hospital, "A03", "15:01", **to_snf)],
            [sent("10:01", "admit", "in-progress"), sent("15:01", "discharge", "finished", **snf)],
        ),
        "expired": (
            [said(hospital, "A01", "10:01"), said(hospital, "A03", "15:01", disposition="20")],
            [sent("10:01", "admit", "in-progress"), sent("15:01", "discharge", "finished", disposition="20")],
        ),
        "ED to inpatient": (
            [said(hospital, "A04", "10:01", "E"), said(hospital, "A06", "12:00")],
            [sent("10:01", "admit", "in-progress", "EMER"), sent("12:00", "transfer", "in-progress")],
        ),
        "ED and home": (
            [said(hospital, "A04", "10:01", "E"), said(hospital, "A03", "15:01", "E", disposition="01")],
            [
                sent("10:01", "admit", "in-progress", "EMER"),
                sent("15:01", "discharge", "finished", "EMER", disposition="01"),
            ],
        ),
        "encounter cancelled": (
            [said(hospital, "A01", "10:01"), said(hospital, "A11", "11:00")],
            [sent("10:01", "admit", "in-progress"), sent("11:00", "admit", "cancelled")],
        ),
        "discharge cancelled": (
            [said(hospital, "A01", "10:01"), said(hospital, "A03", "15:01", **to_snf), said(hospital, "A13", "16:00")],
            [
                sent("10:01", "admit", "in-progress"),
                sent("15:01", "discharge", "finished", **snf),
                sent("16:00", "discharge", "in-progress"),
            ],
        ),
        "destination corrected": (
            [
                said(hospital, "A01", "10:01"),
                said(hospital, "A03", "15:01", **to_snf),
                said(hospital, "A03", "16:00", destination="MEADOW", disposition="03"),
            ],
            [
                sent("10:01", "admit", "in-progress"),
                sent("15:01", "discharge", "finished", **snf),
                sent("16:00", "discharge", "finished", to="MEADOW", disposition="03"),
            ],
        ),
    }


@pytest.mark.parametrize("name", stays(Hospital()))
async def test_the_same_notices(town: Setting, name: str) -> None:
    adt, fhir = stays(Hospital())[name]
    expected: list[Told] = []
    for each in adt:
        expected += await town.hear(each)
    assert expected
    for kind in MAKES:
        await town.pool.execute(
            "truncate encounter, encounter_event, notice, decision, lane, transition, patient cascade"
        )
        assert sorted(await hear(town, [MAKES[kind](each) for each in fhir])) == sorted(expected), kind


async def test_documents_reach_the_notice_of_the_encounter(town: Setting) -> None:
    discharge = sent("15:01", "discharge", "finished", to="SUNNYSIDE REHAB", disposition="03")
    await hear(town, [sent("10:01", "admit", "in-progress"), document(discharge)])
    notice = next(each for each, _ in await town.notices("sunnyside"))
    row = await town.pool.fetchrow("select content, fhir from snapshot where snapshot_id = $1", notice.snapshot_id)
    assert row is not None
    shown = msgspec.structs.replace(notice, level=Level.FULL)
    recipient = town.live.recipient(notice.recipient_id)
    assert recipient is not None
    snapshot = msgspec.json.decode(unpack(row["content"]), type=Snapshot)
    body = msgspec.json.decode(render_notice(shown, snapshot, unpack(row["fhir"]), recipient, {HOSPITAL.id: HOSPITAL}))
    (found,) = body["data"]["encounter"]["documents"]
    assert (found["title"], found["url"]) == ("Transfer of O'NEIL", None)
    assert "documents" not in body["data"]["not_supplied"]
