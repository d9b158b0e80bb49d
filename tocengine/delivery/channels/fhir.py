"""Owns delivery over FHIR: one Da Vinci notification bundle POSTed to a partner's $process-message."""

from datetime import datetime

import msgspec

from tocengine.delivery.channels.base import Answer, Surroundings, classify
from tocengine.formats.fhir.notification import render_notification
from tocengine.formats.fhir.validity import assert_valid
from tocengine.model.directory import Recipient
from tocengine.model.encounter import Snapshot
from tocengine.model.notice import Failure, Notice, Outcome
from tocengine.ports import Address

_CONTENT_TYPE = "application/fhir+json"
_REFUSING = frozenset({"error", "fatal"})


class _Issue(msgspec.Struct):
    severity: str = ""


class _Resource(msgspec.Struct, rename={"type": "resourceType"}):
    """As much of an answer as decides: an OperationOutcome's severities."""

    type: str = ""
    issue: tuple[_Issue, ...] = ()


class FhirChannel:
    """Sends notices as messages (FHIR R4 messaging; Da Vinci Unsolicited Notifications 1.1.0).

    200 and 204 are processable, 202 only received; a 200 that carries an OperationOutcome of severity error
    or fatal is a refusal.
    """

    reads_chart = True

    def __init__(self, surroundings: Surroundings) -> None:
        self._poster = surroundings.poster
        self._identity = surroundings.identity

    def render(self, notice: Notice, snapshot: Snapshot, fhir: bytes, recipient: Recipient, url: str) -> bytes:
        """The bundle; `Bundle.identifier` is the notice's id, however often it is sent.

        Raises InvalidBundleError for one that FHIR would not take: nothing wrong is sent.
        """
        body = render_notification(notice, snapshot, fhir, recipient, url, self._identity)
        assert_valid(body)
        return body

    async def send(self, address: Address, notice: Notice, body: bytes, now: datetime) -> Outcome:
        """One POST to ``[url]/$process-message``."""
        headers = {**address.headers, "content-type": _CONTENT_TYPE, "accept": _CONTENT_TYPE}
        url = f"{address.url.rstrip('/')}/$process-message"
        answer = await self._poster.post(url, body, headers, address.timeout_s, now, read=True)
        if isinstance(answer, Outcome):
            return answer
        return _refused(answer) or classify(answer)


def _refused(answer: Answer) -> Outcome | None:
    """The outcome of a success status whose body says otherwise; a body that is no FHIR says nothing."""
    if answer.status != 200:
        return None
    if answer.body is None:
        return Outcome(failure=Failure.AMBIGUOUS, delivered=False, status=200, detail="answer not read")
    try:
        resource = msgspec.json.decode(answer.body, type=_Resource)
    except msgspec.DecodeError:
        return None
    if resource.type != "OperationOutcome" or not any(one.severity in _REFUSING for one in resource.issue):
        return None
    return Outcome(
        failure=Failure.PERMANENT, delivered=False, reached=False, status=200, detail="OperationOutcome error"
    )
