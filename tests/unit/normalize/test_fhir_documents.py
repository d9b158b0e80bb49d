"""Documents are kept whole with their event, described in the chart, and shown by notices at level FULL."""

import base64

import orjson

from tests.unit.adapters.fhir.bundles import Bundle, bundle, encoded
from tests.unit.adapters.fhir.written import document, document_reference, transaction
from tests.unit.normalize.test_fhir import message, source
from tocengine.formats.fhir.chart import overlay
from tocengine.formats.fhir.documents import Document, documents_of
from tocengine.normalize.fhir import FhirNormalizer


def content(sent: Bundle) -> bytes:
    (record,) = FhirNormalizer(source()).normalize(message(encoded(sent)))
    return bytes(record.fhir)


def resources(fhir: bytes, kind: str) -> list[Bundle]:
    return [e["resource"] for e in orjson.loads(fhir)["entry"] if e["resource"]["resourceType"] == kind]


def test_a_document_bundle_is_kept_as_it_came() -> None:
    sent = document(bundle())
    fhir = content(sent)
    (kept,) = resources(fhir, "Bundle")
    assert {**kept, "id": "d-1"} == sent
    (described,) = resources(fhir, "DocumentReference")
    (encounter,) = resources(fhir, "Encounter")
    assert described["context"]["encounter"] == [{"reference": f"urn:uuid:{encounter['id']}"}]
    assert described["content"][0]["attachment"]["url"] == f"urn:uuid:{kept['id']}"
    assert described["masterIdentifier"] == sent["identifier"]
    assert resources(fhir, "Composition") == []


def test_a_problem_list_of_a_document_does_not_replace_the_diagnoses() -> None:
    sent = document(bundle())
    extra = {
        "resourceType": "Condition",
        "id": "old",
        "code": {"text": "Old fracture"},
        "subject": {"reference": "urn:uuid:p"},
    }
    sent["entry"].append({"fullUrl": "urn:uuid:old", "resource": extra})
    assert len(resources(content(sent), "Condition")) == 1


def test_the_bytes_of_an_attachment_are_kept_beside_its_description() -> None:
    fhir = content(
        transaction(bundle(), documents=(document_reference(extension=[{"url": "urn:x", "valueString": "y"}]),))
    )
    (binary,) = resources(fhir, "Binary")
    (described,) = resources(fhir, "DocumentReference")
    assert base64.b64decode(binary["data"]) == b"Summary"
    attachment = described["content"][0]["attachment"]
    assert attachment == {
        "contentType": "text/plain",
        "title": "Summary",
        "url": f"urn:uuid:{binary['id']}",
        "size": 7,
        "hash": attachment["hash"],
    }
    assert "extension" not in described


def test_a_document_bundle_inside_a_transaction_is_what_its_reference_points_at() -> None:
    inner = document(bundle()) | {"id": "toc"}
    described = document_reference(
        content=[{"attachment": {"contentType": "application/fhir+json", "url": "Bundle/toc"}}]
    )
    fhir = content(transaction(bundle(), documents=(inner, described)))
    (kept,) = resources(fhir, "Bundle")
    (found,) = resources(fhir, "DocumentReference")
    assert found["content"][0]["attachment"]["url"] == f"urn:uuid:{kept['id']}"
    assert kept["entry"] == inner["entry"]


def test_the_chart_describes_documents_and_does_not_hold_them() -> None:
    for sent in (document(bundle()), transaction(bundle(), documents=(document_reference(),))):
        fhir = content(sent)
        for chart in (overlay([fhir]), overlay([content(bundle("admit", "in-progress")), fhir])):
            assert len(resources(chart, "DocumentReference")) == 1
            assert resources(chart, "Bundle") == resources(chart, "Binary") == []


def test_a_document_sent_again_takes_the_place_of_the_first() -> None:
    first, second = document(bundle()), document(bundle(), title="Transfer, amended", status="amended")
    chart = overlay([content(first), content(second)])
    (described,) = resources(chart, "DocumentReference")
    assert (described["docStatus"], described["content"][0]["attachment"]["title"]) == ("amended", "Transfer, amended")


def test_a_notice_names_documents_and_only_what_can_be_fetched_has_an_address() -> None:
    elsewhere = document_reference(
        id="far", content=[{"attachment": {"contentType": "application/pdf", "url": "https://ehr.example.org/d/7"}}]
    )
    chart = overlay([content(transaction(bundle(), documents=(document_reference(), elsewhere)))])
    held, far = sorted(documents_of(chart), key=lambda each: each.url or "")
    assert held == Document(
        id=held.id,
        type="Discharge summary",
        title="Summary",
        date="2026-03-01T15:30:00-05:00",
        content_type="text/plain",
        size=7,
        url=None,
    )
    assert far.url == "https://ehr.example.org/d/7"
    assert documents_of(chart.replace(b'"status":"current"', b'"status":"superseded"')) == []
