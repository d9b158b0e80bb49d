"""Owns what a request means, without any socket: its identity as a message, what is wrong with it, and the answer."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import orjson

from tocengine.errors import RefusedError, SyntaxRefusedError
from tocengine.formats.fhir.fitness import unfit
from tocengine.formats.fhir.incoming import read_notifications
from tocengine.formats.fhir.incoming_checks import incoming_problems
from tocengine.formats.fhir.json_body import DEFAULT_LIMITS, BodyLimits, parse_json, path_text, read_json
from tocengine.formats.fhir.resources import Resource
from tocengine.formats.fhir.subscriptions import is_subscription_bundle, read_status
from tocengine.model.ids import FeedName, MessageId, derive
from tocengine.model.message import Disposition, Problem, Receipt

if TYPE_CHECKING:
    from pydantic import BaseModel

FHIR_JSON = "application/fhir+json"
_CONTENT_TYPES = frozenset({FHIR_JSON, "application/json"})
MAX_PROBLEMS = 20
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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return head.identifier.value or head.id


def message_id(feed: FeedName, client: str, body: bytes, unread: str = "") -> MessageId:
    """The same transmission by the same client has the same id, whichever process takes it in.

    `client` is the API client's id, or the feed's name where no clients are configured. The body's hash is part of
    the id: a control id that is used again with other content is another message. So is a request that was refused
    before its body was read, for the reason `unread`: the same body, sent rightly, may have been taken.
    """
    reason = (unread,) if unread else ()
    return MessageId(derive("message", feed, client, control_id(body), hashlib.sha256(body).digest(), *reason))


def media_type_accepted(header: str) -> bool:
    """Whether Content-Type is one we read: FHIR JSON in UTF-8, of R4 where it names a version."""
    kind, *rest = (part.strip().lower() for part in header.split(";"))
    parameters = dict(part.partition("=")[::2] for part in rest)
    charset, version = (parameters.get(name, "").strip('"') for name in ("charset", "fhirversion"))
    return kind in _CONTENT_TYPES and charset in ("", "utf-8", "utf8") and version in ("", "4.0", "4.0.1")


def check_message(body: bytes, limits: BodyLimits = DEFAULT_LIMITS) -> RefusedError | None:
    """What makes the body no valid Bundle of a kind that is taken; None where it may go to the intake.

    The rules of Bundles first (`formats.fhir.incoming`), which end at the first problem; then what R4 demands of the
    content (`formats.fhir.incoming_checks`) and every resource against its R4B model, which finds unknown elements,
    wrong types and wrong cardinalities, and what a notice could not repeat (`formats.fhir.fitness`). Of those, up to 20
    are named at once.
    """
    try:
        bundle = read_json(body, limits)
        notifications = read_notifications(bundle)
        if is_subscription_bundle(bundle):
            read_status(bundle)
    except RefusedError as error:
        return error
    found: dict[str, Problem] = {}
    for problem in chain(*map(incoming_problems, notifications[:1]), _model_problems(bundle), unfit(bundle)):
        found.setdefault(problem.location, problem)
        if len(found) == MAX_PROBLEMS:
            break
    return SyntaxRefusedError(*found.values()) if found else None


def subscription_bundle(body: bytes) -> Resource | None:
    """The Bundle in a body that was checked, if it is a subscription notification; None otherwise."""
    if b"history" not in body and b"subscription-notification" not in body:
        return None
    bundle = parse_json(body)
    return bundle if is_subscription_bundle(bundle) else None


def _model_problems(bundle: Resource) -> Iterator[Problem]:
    from pydantic import ValidationError

    listed = bundle.get("entry")
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        resource = item.get("resource") if isinstance(item, dict) else None
        if not isinstance(resource, dict):
            continue
        path = f"Bundle.entry[{position}].resource"
        model = _model(str(resource["resourceType"]))
        if model is None:
            text = "The resource's type is not one of FHIR R4."
            yield Problem(reason="type_unknown", text=text, location=path + ".resourceType", code="structure")
            continue
        try:
            model.model_validate(resource)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                where = tuple(part for part in each["loc"] if part != "root")
                unknown = each["type"] == "extra_forbidden"
                text = "An element is not one of FHIR R4." if unknown else "Not valid FHIR R4."
                yield Problem(reason="not_r4", text=text, location=path_text(path, where), code="structure")
        except (TypeError, AttributeError):  # what the models make of an address that is no text; they do not say where
            yield Problem(reason="not_r4", text="Not valid FHIR R4.", location=path, code="structure")


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
    """An HTTP answer: an OperationOutcome, unless it says another type."""

    status: int
    body: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    content_type: str = ""  # FHIR JSON


def answer_to(receipt: Receipt, location: str = "") -> Answer:
    """202: the message is durable, and nothing more is promised (a repeated one is answered the same).

    A message that was set aside for a person is durable too; the outcome says so as a warning. A refused one gets
    the status its error owes: 400 where it is not valid FHIR, 422 where it is and lacks what the engine needs.
    """
    identity = f"message {receipt.message_id}"
    problem = receipt.problem
    if receipt.disposition is Disposition.REFUSED and problem is not None:
        return refusal((problem,), int(receipt.answered or 422), identity)
    headers = {"Location": location} if location else {}
    if receipt.disposition is Disposition.QUARANTINED and problem is not None:
        return Answer(status=202, body=_outcome("warning", (problem,), identity), headers=headers)
    accepted = Problem(reason="accepted", text="The message was received and stored.", code="informational")
    return Answer(status=202, body=_outcome("information", (accepted,), identity), headers=headers)


def refusal(problems: Sequence[Problem], status: int, diagnostics: str = "") -> Answer:
    """A negative answer: one issue for each problem."""
    return Answer(status=status, body=_outcome("error", problems, diagnostics))


def information(text: str, status: int = 200, diagnostics: str = "") -> Answer:
    """A positive answer that says something."""
    problem = Problem(reason="information", text=text, code="informational")
    return Answer(status=status, body=_outcome("information", (problem,), diagnostics))


def _outcome(severity: str, problems: Sequence[Problem], diagnostics: str) -> bytes:
    issues = []
    for problem in problems:
        code = problem.code if problem.code and not problem.code.isdigit() else "processing"
        issue: dict[str, object] = {"severity": severity, "code": code, "details": {"text": problem.text}}
        if diagnostics:
            issue["diagnostics"] = diagnostics
        if problem.location:
            issue["expression"] = [problem.location]
        issues.append(issue)
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": issues})
