"""Bodies and senders nobody wishes for, over raw sockets: each gets a clear answer, and the next sender its own."""

import asyncio
import gzip
import zlib
from typing import Any

import orjson
import pytest

from tests.integration.fhir.setting import Partner, Start
from tests.unit.adapters.fhir.bundles import bundle, encoded, resource
from tests.unit.adapters.fhir.written import document, document_reference, transaction
from tocengine.config import HttpSettings
from tocengine.eventlog import Topic
from tocengine.eventlog.records import CloudEventReader

LIMIT = 64 * 1024
WHOLE = encoded(bundle())


@pytest.fixture
async def partner(start: Start) -> Partner:
    settings = HttpSettings(
        listen="127.0.0.1:0", max_body_bytes=LIMIT, max_entries=50, max_depth=32, body_timeout_s=0.3, max_connections=4
    )
    return await start(settings=settings)


def nested(depth: int) -> bytes:
    return b'{"resourceType":"Bundle","x":' + b"[" * depth + b"]" * depth + b"}"


def with_many_entries() -> bytes:
    sent = bundle()
    sent["entry"] += [{"fullUrl": f"urn:uuid:{n}", "resource": {"resourceType": "Basic"}} for n in range(60)]
    return encoded(sent)


@pytest.mark.parametrize(
    ("body", "expression"),
    [
        (WHOLE[:-40], None),
        (WHOLE + b"{}", None),
        (WHOLE.replace(b"O'NEIL", b"\xd1NEIL"), None),
        (WHOLE.decode().encode("utf-16"), None),
        (WHOLE.replace(b'"timestamp":', b'"total":NaN,"timestamp":'), None),
        (nested(40), None),
        (nested(3000), None),
        (with_many_entries(), "Bundle.entry"),
        (WHOLE.replace(b'"gender":"female"', b'"gender":"female","gender":"male"'), "Bundle.entry[2].resource.gender"),
        (WHOLE.replace(b'"gender":"female"', b'"gender":"F"'), "Bundle.entry[2].resource.gender"),
        (WHOLE.replace(b'"gender":"female"', b'"active":"true"'), "Bundle.entry[2].resource.active"),
        (WHOLE.replace(b"1940-01-02", b"1940-02-30"), "Bundle.entry[2].resource.birthDate"),
        (
            WHOLE.replace(b'"urn:uuid:dr"}', b'"urn:uuid:nobody"}'),
            "Bundle.entry[1].resource.participant[0].individual.reference",
        ),
        (b"null", None),
        (b'"text"', None),
    ],
)
async def test_what_cannot_be_read_is_refused_by_place_and_kept(
    partner: Partner, body: bytes, expression: str | None
) -> None:
    response, issue = await partner.post(body)
    assert response.status == 400
    assert issue.get("expression") == ([expression] if expression else None)
    assert "NEIL" not in repr(issue)
    assert partner.stored() == {"toc.quarantine.v1": 1}
    assert (await partner.post(WHOLE))[0].status == 202


async def test_every_problem_is_named_at_once(partner: Partner) -> None:
    sent = bundle()
    resource(sent, "Patient").update(gender="F", birthDate="yesterday", favourite=1)
    resource(sent, "Encounter")["status"] = "gone"
    url = f"http://127.0.0.1:{partner.server.port}/fhir"
    headers = {"Content-Type": "application/fhir+json"}
    async with partner.session.post(url, data=encoded(sent), headers=headers) as response:
        issues = orjson.loads(await response.read())["issue"]
    assert {issue["expression"][0] for issue in issues} == {
        "Bundle.entry[1].resource.status",
        "Bundle.entry[2].resource.gender",
        "Bundle.entry[2].resource.birthDate",
        "Bundle.entry[2].resource.favourite",
    }


@pytest.mark.parametrize(
    ("change", "location"),
    [
        (lambda b: b["entry"][0].pop("request"), "Bundle.entry[0].request.method"),
        (lambda b: b["entry"][0]["request"].update(method="DELETE"), "Bundle.entry[0].request.method"),
        (lambda b: b["entry"].pop(0), "Bundle.entry"),
        (lambda b: b["entry"].append(b["entry"][0] | {"fullUrl": "urn:uuid:e2"}), "Bundle.entry"),
    ],
)
async def test_rules_of_transactions(partner: Partner, change: Any, location: str) -> None:
    sent = transaction(bundle())
    change(sent)
    response, issue = await partner.post(encoded(sent), "/fhir")
    assert (response.status, issue["expression"]) == (400, [location])


@pytest.mark.parametrize(
    ("change", "location"),
    [
        (lambda b: b.pop("identifier"), "Bundle.identifier"),
        (lambda b: b.pop("timestamp"), "Bundle.timestamp"),
        (lambda b: b["entry"].reverse(), "Bundle.entry[0]"),
        (
            lambda b: b["entry"][0]["resource"].update(encounter={"reference": "Encounter/9"}),
            "Bundle.entry[0].resource.encounter",
        ),
    ],
)
async def test_rules_of_documents(partner: Partner, change: Any, location: str) -> None:
    sent = document(bundle())
    change(sent)
    response, issue = await partner.post(encoded(sent), "/fhir/Bundle")
    assert (response.status, issue["expression"]) == (400, [location])


async def test_transactions_and_documents_are_taken(partner: Partner) -> None:
    assert (await partner.post(encoded(transaction(bundle(), documents=(document_reference(),))), "/fhir"))[
        0
    ].status == 202
    assert (await partner.post(encoded(document(bundle())), "/fhir/Bundle"))[0].status == 202
    assert partner.stored() == {"toc.messages.v1": 2, "toc.events.v1": 2}


async def test_gzip_is_taken_and_a_bomb_is_not(partner: Partner) -> None:
    packed = {"Content-Encoding": "gzip"}

    async def send(body: bytes) -> int:
        return (await raw(partner, body, packed))[0]

    assert await send(gzip.compress(WHOLE)) == 202
    assert await send(gzip.compress(bytes(200 * 1024 * 1024 // 4))) == 413
    assert await send(gzip.compress(WHOLE)[:-9]) == 400
    assert await send(gzip.compress(WHOLE) + b"more") == 400
    assert await send(WHOLE) == 400
    assert await send(zlib.compress(WHOLE)) == 400
    assert partner.metrics.fhir_refused.labels("gzip")._value.get() == 4


async def raw(partner: Partner, body: bytes, headers: dict[str, str], length: int | None = None) -> tuple[int, bytes]:
    """The answer to bytes written as they are, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", partner.server.port)
    sent = {"Host": "x", "Content-Type": "application/fhir+json", "Connection": "close"} | headers
    sent["Content-Length"] = str(len(body) if length is None else length)
    lines = ["POST /fhir HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


async def test_a_slow_body_is_dropped_at_the_timeout(partner: Partner) -> None:
    status, body = await raw(partner, WHOLE[:100], {}, length=len(WHOLE))
    assert (status, orjson.loads(body)["issue"][0]["code"]) == (408, "timeout")
    assert kept(partner) == [("slow_body", "framing", "408", WHOLE[:100])]
    assert (await partner.post(WHOLE))[0].status == 202


async def test_ten_megabytes_are_refused_before_they_are_read(partner: Partner) -> None:
    status, _ = await raw(partner, b"x", {}, length=10 * 1024 * 1024)
    assert status == 413
    assert kept(partner) == [("too_large", "framing", "413", b"x")]


def kept(partner: Partner) -> list[tuple[str, str, str, bytes]]:
    """What is in quarantine: reason, stage, answer, and bytes."""
    found = []
    for record in partner.log.of_topic(Topic.QUARANTINE):
        entry = CloudEventReader().quarantined(record)
        found.append((entry.problem.reason, entry.problem.stage, entry.answered, entry.message.body))
    return found


@pytest.mark.parametrize(
    ("headers", "sent", "reason", "stage", "status"),
    [
        ({"Content-Type": "text/plain"}, WHOLE, "media_type", "gate", 415),
        ({"Content-Type": "text/plain"}, bytes(LIMIT + 1), "media_type", "framing", 415),
        ({"Content-Encoding": "br"}, WHOLE, "encoding", "framing", 415),
        ({"Content-Encoding": "gzip"}, WHOLE, "gzip", "framing", 400),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(LIMIT + 1), mtime=0), "too_large", "framing", 413),
        ({}, bytes(LIMIT + 1), "too_large", "framing", 413),
    ],
)
async def test_what_was_refused_unread_is_kept_as_far_as_the_limits_go(
    partner: Partner, headers: dict[str, str], sent: bytes, reason: str, stage: str, status: int
) -> None:
    response, issue = await partner.post(sent, headers=headers)
    assert response.status == status
    assert issue["diagnostics"].startswith("message ")
    assert kept(partner) == [(reason, stage, str(status), sent[:LIMIT])]


async def test_what_is_refused_unread_is_no_repetition_of_what_was_taken(partner: Partner) -> None:
    """Or the message that was taken would be told as set aside."""
    answers = [await partner.post(WHOLE), await partner.post(WHOLE, headers={"Content-Type": "text/plain"})]
    assert [response.status for response, _ in answers] == [202, 415]
    assert len({issue["diagnostics"] for _, issue in answers}) == 2


async def test_a_request_for_a_response_message_is_kept_too(partner: Partner) -> None:
    response, _ = await partner.post(WHOLE, "/fhir/$process-message?async=true")
    assert response.status == 422
    assert kept(partner) == [("not-supported", "gate", "422", WHOLE)]


async def test_nothing_is_kept_of_who_is_asked_to_wait_or_sends_nothing(partner: Partner, start: Start) -> None:
    settings = HttpSettings(listen="127.0.0.1:0", requests_per_minute=1, request_burst=1)
    patient = await start(settings=settings)
    assert [(await patient.post(WHOLE))[0].status for _ in range(2)] == [202, 429]
    assert (await raw(partner, b"", {"Expect": "100-continue"}, length=LIMIT + 1))[0] == 413
    assert kept(patient) + kept(partner) == []


async def test_more_connections_than_there_is_room_for_are_told_so(partner: Partner) -> None:
    held = [await asyncio.open_connection("127.0.0.1", partner.server.port) for _ in range(4)]
    assert (await raw(partner, WHOLE, {}))[0] == 503
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    while (await raw(partner, WHOLE, {}))[0] == 503:  # noqa: ASYNC110 - until the server saw them go
        await asyncio.sleep(0.01)
    assert (await raw(partner, WHOLE, {}))[0] == 202
