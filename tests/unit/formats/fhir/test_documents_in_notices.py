"""A FHIR notice at level FULL lists documents, and repeats nothing that its own rules would not take."""

from typing import Any

import orjson

from tests.fixtures.notices import ENGINE, SUNNYSIDE, URL, notice, snapshot
from tests.unit.adapters.fhir.bundles import bundle, encoded, resource
from tests.unit.adapters.fhir.written import document, document_reference, transaction
from tests.unit.normalize.test_fhir import message, source
from tocengine.formats.fhir.chart import overlay
from tocengine.formats.fhir.checks import check_bundle
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.schema import validator
from tocengine.model.directory import Level
from tocengine.model.encounter import EncounterState
from tocengine.normalize.fhir import FhirNormalizer


def rendered(sent: dict[str, Any], level: Level) -> dict[str, Any]:
    (record,) = FhirNormalizer(source()).normalize(message(encoded(sent)))
    told = notice(record.summary, level=level)
    tracked = snapshot(record.summary, EncounterState.DISCHARGED)
    chart = overlay([bytes(record.fhir)])
    made: dict[str, Any] = orjson.loads(render_notification(told, tracked, chart, SUNNYSIDE, URL, ENGINE))
    assert check_bundle(made) == []
    assert [error.message for error in validator().iter_errors(made)] == []
    return made


def kinds(made: dict[str, Any]) -> list[str]:
    return [entry["resource"]["resourceType"] for entry in made["entry"]]


def test_documents_are_listed_at_level_full_alone() -> None:
    for sent in (document(bundle()), transaction(bundle(), documents=(document_reference(),))):
        assert kinds(rendered(sent, Level.FULL)).count("DocumentReference") == 1
        assert "DocumentReference" not in kinds(rendered(sent, Level.STANDARD))


def test_what_only_the_sender_understands_is_not_repeated() -> None:
    sent = bundle()
    condition = resource(sent, "Condition")
    condition["code"]["coding"][0]["userSelected"] = True
    condition["note"] = [{"text": "call first"}]
    condition["code"]["extension"] = [{"url": "urn:x", "valueBoolean": True}]
    described = document_reference()
    described["type"]["coding"][0]["userSelected"] = True
    made = rendered(transaction(sent, documents=(described,)), Level.FULL)
    assert b"userSelected" not in orjson.dumps(made)
    assert b"call first" not in orjson.dumps(made)
