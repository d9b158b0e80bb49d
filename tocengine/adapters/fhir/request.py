"""Owns what a request means, without any socket: its identity as a message, what is wrong with it, and the answer."""

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
import orjson

from tocengine.errors import RefusedError
from tocengine.formats.fhir.incoming import Notification, read_json, read_notification, refuse, safe_name
from tocengine.model.ids import FeedName, MessageId, derive
from tocengine.model.message import Disposition, Problem, Receipt

if TYPE_CHECKING:
    from pydantic import BaseModel

FHIR_JSON = "application/fhir+json"
_CONTENT_TYPES = frozenset({FHIR_JSON, "application/json"})
PRELOADED = ("MessageHeader", "Encounter", "Patient", "Practitioner", "Organization", "Location", "Condition")


class _IdentifierHead(msgspec.Struct, frozen=True):
    system: str = ""
    value: str = ""


class _BundleHead(msgspec.Struct, frozen=True):
    id: str = ""
    identifier: _IdentifierHead = _IdentifierHead()


def control_id(body: bytes) -> str:
    """Bundle.identifier.value, else Bundle.id, else "": what the sender calls this message."""
    try:
        head = msgspec.json.decode(body, type=_BundleHead)
    except (msgspec.MsgspecError, RecursionError):
        return ""
    return head.identifier.value or head.id


def message_id(feed: FeedName, client: str, body: bytes) -> MessageId:
    """The same transmission by the same client has the same id, whichever process takes it in.

    `client` is the API client's id, or the feed's name where no clients are configured. The body's hash is part of
    the id: a control id that is used again with other content is another message.
    """
    return MessageId(derive("message", feed, client, control_id(body), hashlib.sha256(body).digest()))


def media_type_accepted(header: str, encoding: str) -> bool:
    """Whether Content-Type and Content-Encoding are ones we read: FHIR JSON in UTF-8, not compressed."""
    kind, *parameters = (part.strip().lower() for part in header.split(";"))
    charset = next((p.removeprefix("charset=").strip('"') for p in parameters if p.startswith("charset=")), "utf-8")
    return kind in _CONTENT_TYPES and charset in ("utf-8", "utf8") and encoding.lower() in ("", "identity")


def check_message(body: bytes) -> RefusedError | None:
    """What makes the body no valid notification; None where it may go to the intake.

    The rules of messages first (`formats.fhir.incoming`), then every resource against its R4B model, which finds
    unknown elements, wrong types and wrong cardinalities (but no bindings and no profiles).
    """
    try:
        _check_models(read_notification(read_json(body)))
    except RefusedError as error:
        return error
    return None


def _check_models(notification: Notification) -> None:
    from pydantic import ValidationError

    for position, (_, resource) in enumerate(notification.entries):
        path = f"Bundle.entry[{position}].resource"
        model = _model(str(resource["resourceType"]))
        if model is None:
            refuse("type_unknown", "The resource's type is not one of FHIR R4.", path + ".resourceType", "structure")
        try:
            model.model_validate(resource)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            names = [f"[{part}]" if isinstance(part, int) else "." + safe_name(part) for part in first["loc"]]
            text = "An element is not one of FHIR R4." if first["type"] == "extra_forbidden" else "Not valid FHIR R4."
            refuse("not_r4", text, path + "".join(name for name in names if name != ".root"), "structure")


@lru_cache(maxsize=256)
def _model(kind: str) -> "type[BaseModel] | None":
    """The R4B model of a resource type: the library has no R4, and of what notifications carry they are the same.

    Imported when the type is first seen: all of R4B would cost 3 s and 100 MB.
    """
    from fhir.resources.R4B import get_fhir_model_class
    from fhir.resources.R4B.resource import Resource as AnyResource

    try:
        model: type[BaseModel] = get_fhir_model_class(kind)
    except (ValueError, KeyError, ImportError):
        return None
    return model if issubclass(model, AnyResource) else None


def preload_models() -> None:
    """Imports what every notification needs, so that the first sender does not wait for it (about 0.7 s)."""
    for kind in PRELOADED:
        _model(kind)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer with an OperationOutcome."""

    status: int
    body: bytes


def answer_to(receipt: Receipt) -> Answer:
    """202: the message is durable, and nothing more is promised (a repeated one is answered the same).

    A message that was set aside for a person is durable too; the outcome says so as a warning. A refused one gets
    the status its error owes: 400 where it is not valid FHIR, 422 where it is and lacks what the engine needs.
    """
    identity = f"message {receipt.message_id}"
    problem = receipt.problem
    if receipt.disposition is Disposition.REFUSED and problem is not None:
        return refusal(problem, int(receipt.answered or 422), identity)
    if receipt.disposition is Disposition.QUARANTINED and problem is not None:
        return Answer(status=202, body=_outcome("warning", problem, identity))
    accepted = Problem(reason="accepted", text="The message was received and stored.", code="informational")
    return Answer(status=202, body=_outcome("information", accepted, identity))


def refusal(problem: Problem, status: int, diagnostics: str = "") -> Answer:
    """A negative answer."""
    return Answer(status=status, body=_outcome("error", problem, diagnostics))


def _outcome(severity: str, problem: Problem, diagnostics: str) -> bytes:
    code = problem.code if problem.code and not problem.code.isdigit() else "processing"
    issue: dict[str, object] = {"severity": severity, "code": code, "details": {"text": problem.text}}
    if diagnostics:
        issue["diagnostics"] = diagnostics
    if problem.location:
        issue["expression"] = [problem.location]
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
