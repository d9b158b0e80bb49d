"""What an ADT message and each kind of FHIR Bundle say of one event gives the same summary."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson
import pytest

from tests.fixtures.adt import segment
from tests.unit.adapters.fhir.bundles import NUBC, Bundle, bundle, coded, resource
from tests.unit.adapters.fhir.written import document, document_reference, notification, transaction
from tests.unit.normalize.test_fhir import message, source
from tocengine.model.event import Event
from tocengine.model.facts import PatientClass
from tocengine.model.message import ContentType
from tocengine.normalize.fhir import FhirNormalizer
from tocengine.normalize.normalizer import HL7v2Normalizer

Make = Callable[[Bundle], Bundle]
KINDS: Mapping[str, Make] = {
    "message": lambda sent: sent,
    "transaction": transaction,
    "subscription": lambda sent: notification(sent, method="POST"),
}
ROE = "1999000031^ROE^ANN^^^^^^NPI"
OPEN = {"period": {"start": "2026-02-26T10:15:00-05:00"}}


def adt(trigger: str, cls: str = "I", happened: str = "", **pv1: str) -> bytes:
    """The ADT message that `bundle` is made after."""
    fields = {1: "1", 2: cls, 3: "3N", 7: ROE, 19: "V500^^^STJ^VN", 44: "20260226101500-0500"}
    fields |= {int(name[1:]): value for name, value in pv1.items()}
    segments = [
        f"MSH|^~\\&|EPICADT|STJ|TOCENGINE|HIE|20260301154100-0500||ADT^{trigger}|b-1|P|2.5.1",
        segment("EVN", {2: "20260301154100-0500", 6: happened}),
        "PID|1||0012345^^^STJ^MR||O'NEIL^MARY^J^^^^L||19400102|F",
        "PD1|||UTICA FAMILY MED^^^^^NPI^^^^1999000049|1234567893^PATEL^RAVI^^^^^^NPI",
        segment("PV1", fields),
        "DG1|1||I50.9^Heart failure, unspecified^I10",
        "",
    ]
    return "\r".join(segments).encode()


LEFT = {"f45": "20260301153500-0500", "f36": "03", "f37": "SUNNYSIDE REHAB"}
EXPIRED: dict[str, Any] = {
    "period": OPEN["period"] | {"end": "2026-03-01T15:35:00-05:00"},
    "hospitalization": {"dischargeDisposition": coded(NUBC, "20")},
}
PAIRS: Mapping[str, tuple[bytes, Bundle]] = {
    "ED registration": (adt("A04", "E"), bundle("admit", "in-progress", "EMER")),
    "admit": (adt("A01"), bundle("admit", "in-progress")),
    "observation": (adt("A01", "OBS"), bundle("admit", "in-progress", "OBSENC")),
    "outpatient": (adt("A04", "O"), bundle("admit", "in-progress", "AMB")),
    "pre-admit": (adt("A05", "P"), bundle("admit", "planned", "PRENC")),
    "discharge to a nursing facility": (adt("A03", **LEFT), bundle()),
    "expired": (adt("A03", f36="20", f45="20260301153500-0500"), bundle(**EXPIRED)),
    "ED discharge": (adt("A03", "E", **LEFT), bundle(kind="EMER")),
    "cancelled encounter": (adt("A11"), bundle("admit", "cancelled")),
}


def fhir_events(sent: Bundle) -> list[Event]:
    return [record.summary for record in FhirNormalizer(source()).normalize(message(orjson.dumps(sent)))]


def adt_event(sent: bytes) -> Event:
    profile = msgspec.structs.replace(source().profile, class_map={"OBS": PatientClass.OBSERVATION})
    feed = msgspec.structs.replace(source(), profile=profile)
    (record,) = HL7v2Normalizer(feed).normalize(message(sent, ContentType.HL7V2))
    return record.summary


def comparable(event: Event) -> dict[str, Any]:
    """Everything but what names the format: ids, class code as sent, where the treating one was found."""
    found: dict[str, Any] = msgspec.to_builtins(event)
    for name in ("message_id", "content_type", "control_id"):
        found.pop(name)
    for name in ("class_code", "treating_source"):
        found["encounter_facts"].pop(name)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", PAIRS)
def test_the_summary_is_that_of_the_equivalent_adt(what: str, kind: str) -> None:
    said, sent = PAIRS[what]
    (event,) = fhir_events(KINDS[kind](sent))
    expected = adt_event(said)
    assert comparable(event) == comparable(expected)


@pytest.mark.parametrize("what", ["discharge to a nursing facility", "expired", "ED discharge"])
def test_a_document_that_states_the_end_is_a_discharge_too(what: str) -> None:
    said, sent = PAIRS[what]
    (event,) = fhir_events(document(sent))
    assert comparable(event) == comparable(adt_event(said))


def test_a_document_about_an_open_stay_updates_it() -> None:
    (event,) = fhir_events(document(bundle("admit", "in-progress")))
    assert comparable(event) == comparable(adt_event(adt("A08"))) | {"trigger": "A08"}
    assert event.effective is None


@pytest.mark.parametrize("make", [lambda sent: transaction(sent, "PUT"), notification])
def test_an_open_encounter_written_over_takes_a_discharge_back(make: Make) -> None:
    arrived, restored = fhir_events(make(bundle("admit", "in-progress")))
    assert [(each.trigger, each.part) for each in (arrived, restored)] == [("A01", 0), ("A13", 1)]
    assert arrived.order_key < restored.order_key
    assert (restored.message_id, restored.visit) == (arrived.message_id, arrived.visit)


@pytest.mark.parametrize("make", [transaction, KINDS["subscription"]])
def test_an_encounter_written_as_on_leave_is_a_leave(make: Make) -> None:
    (event,) = fhir_events(make(bundle("admit", "onleave")))
    assert comparable(event) == comparable(adt_event(adt("A21")))


def test_a_transfer_of_a_notification_is_a_class_change() -> None:
    (event,) = fhir_events(bundle("transfer", "in-progress"))
    expected = comparable(adt_event(adt("A06")))
    found = comparable(event)
    assert {**found, "effective": None} == {**expected, "effective": None}


def test_a_correction_changes_what_it_changes_in_both() -> None:
    sent = bundle()
    resource(sent, "Encounter")["hospitalization"]["dischargeDisposition"] = coded(NUBC, "62")
    (event,) = fhir_events(transaction(sent, "PUT"))
    assert comparable(event) == comparable(adt_event(adt("A03", **{**LEFT, "f36": "62"})))


def test_a_batch_is_read_as_a_transaction() -> None:
    sent = transaction(bundle()) | {"type": "batch"}
    assert [event.trigger for event in fhir_events(sent)] == ["A03"]


def test_several_events_of_one_notification_stay_apart() -> None:
    first, second = bundle("admit", "in-progress"), bundle()
    other = notification(second, numbers=(2,), method="POST")
    text = orjson.dumps(other).decode()
    for name in ("Encounter/e", "Patient/p", "Condition/dx"):
        text = text.replace(f'{name}"', f'{name}2"')
    text = text.replace('"id":"e"', '"id":"e2"').replace('"id":"p"', '"id":"p2"').replace('"id":"dx"', '"id":"dx2"')
    text = text.replace("V500", "V600").replace("0012345", "0099999").replace("I50.9", "J18.9")
    both = notification(first, numbers=(1,), method="POST")
    parsed = orjson.loads(text)
    both["entry"][0]["resource"]["parameter"] += [
        each for each in parsed["entry"][0]["resource"]["parameter"] if each["name"] == "notification-event"
    ]
    both["entry"] += parsed["entry"][1:3] + [e for e in parsed["entry"] if e["resource"]["resourceType"] == "Condition"]
    records = FhirNormalizer(source()).normalize(message(orjson.dumps(both)))
    assert [(r.summary.trigger, r.summary.part) for r in records] == [("A01", 0), ("A03", 1)]
    assert b"J18.9" not in bytes(records[0].fhir)
    assert b"0099999" not in bytes(records[0].fhir)
    assert b"I50.9" not in bytes(records[1].fhir)


def test_without_an_identifier_the_address_on_the_senders_server_names_the_visit() -> None:
    (event,) = fhir_events(notification(bundle(identifier=None), method="POST"))
    assert event.visit is not None
    assert (event.visit.domain, event.visit.value) == ("https://ehr.example.org/fhir/Encounter", "e")
    assert event.flags == ("visit_by_address",)


def test_a_document_of_a_transaction_is_not_in_the_summary() -> None:
    plain = fhir_events(transaction(bundle()))
    assert [comparable(e) for e in fhir_events(transaction(bundle(), documents=(document_reference(),)))] == [
        comparable(e) for e in plain
    ]
