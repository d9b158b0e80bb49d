"""Owns the signed webhook: a notice as JSON at its disclosure level, signed after Standard Webhooks.

Everything that leaves is on the allow-list of its level below; what is not named there cannot leak.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from msgspec import UNSET

from tocengine.delivery.channels.base import Answer, Surroundings, classify
from tocengine.formats.fhir.documents import documents_of
from tocengine.formats.fhir.resources import WITHDRAWN
from tocengine.model.directory import Level, Recipient, RecipientKind
from tocengine.model.encounter import Snapshot, TransitionKind, TransitionStatus
from tocengine.model.facts import EncounterFacts, PatientFacts, PersonName, known, told_name
from tocengine.model.identity import Practitioner
from tocengine.model.ids import FacilityId
from tocengine.model.notice import Failure, Notice, Outcome
from tocengine.model.profile import SendingFacility
from tocengine.model.time import Timestamp
from tocengine.ports import Address

Json = dict[str, object]

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix is public
IDENTIFIER_TYPES = frozenset({None, "MR", "PI", "PT"})
"""Patient identifiers that help a recipient find its own record; a social security number is never among them."""

_NOT_CURRENT = ("inactive", "resolved", *WITHDRAWN)
_DISCHARGES = frozenset(
    {
        TransitionKind.ED_DISCHARGE,
        TransitionKind.INPATIENT_DISCHARGE,
        TransitionKind.ED_DISCHARGE_CORRECTED,
        TransitionKind.INPATIENT_DISCHARGE_CORRECTED,
    }
)


class WebhookChannel:
    """Sends notices to a URL. Any 2xx is delivered (202: received), whatever the answer's body says."""

    reads_chart = True  # for the allergies and documents

    def __init__(self, surroundings: Surroundings) -> None:
        self._poster = surroundings.poster
        self._facilities = surroundings.identity.facilities

    def render(self, notice: Notice, snapshot: Snapshot, fhir: bytes, recipient: Recipient, url: str) -> bytes:
        """The JSON of ``schemas/webhook-notice.v1.json``."""
        return render_notice(notice, snapshot, fhir, recipient, self._facilities)

    async def send(self, address: Address, notice: Notice, body: bytes, now: datetime) -> Outcome:
        """One signed POST; the notice's id is its `webhook-id`, however often it is sent."""
        if not address.secrets:
            return Outcome(failure=Failure.PAUSE, delivered=False, reached=False, detail="no secret")
        headers = signed_headers(str(notice.notice_id), body, address.secrets, now, address.headers)
        answer = await self._poster.post(address.url, body, headers, address.timeout_s, now, read=False)
        return classify(answer) if isinstance(answer, Answer) else answer


def secret_bytes(text: str) -> bytes:
    """The key of a ``whsec_`` secret. Raises ValueError, without the secret in it, for anything else."""
    encoded = text.strip()
    if not encoded.startswith(SECRET_PREFIX):
        raise ValueError("a webhook secret starts with whsec_")
    encoded = encoded.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is whsec_ and base64") from None
    if not key:
        raise ValueError("an empty webhook secret")
    return key


def signed_headers(
    message_id: str, body: bytes, secrets: Sequence[bytes], now: datetime, extra: Mapping[str, str]
) -> dict[str, str]:
    """Headers of a Standard Webhooks message (specification 1.0.0): one v1 signature per secret in force."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in secrets)
    return {
        **extra,
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def render_notice(
    notice: Notice,
    snapshot: Snapshot,
    fhir: bytes,
    recipient: Recipient,
    facilities: Mapping[FacilityId, SendingFacility],
) -> bytes:
    """A notice's body. Within a level every key is there, null where nothing is known; above it, none is.

    A retraction takes back a notice that should not have been sent: it names that notice and says nothing
    about the patient or the visit, because what is known now may be none of the recipient's business.
    """
    data: dict[str, Any] = {
        "notice_id": str(notice.notice_id),
        "status": notice.status,
        "kind": notice.kind,
        "supersedes": str(notice.supersedes) if notice.supersedes else None,
        "basis": list(notice.basis),
        "level": notice.level,
        "late": notice.late,
        "effective_at": notice.effective,
        "recorded_at": notice.recorded,
        "received_at": _instant(snapshot.received_at),
        "from": _sender(snapshot.facility, facilities),
        "to": _receiver(recipient),
    }
    if notice.status is not TransitionStatus.RETRACTED:
        known_allergies, documents = _charted(fhir) if notice.level is Level.FULL else ([], [])
        data["patient"] = _patient(snapshot, notice.level)
        data["encounter"] = _encounter(snapshot, notice.level)
        if notice.level is Level.FULL:
            data["patient"] |= {"allergies": known_allergies}
            data["encounter"] |= {"documents": documents}
        data["not_supplied"] = not_supplied(notice, snapshot, known_allergies, documents)
        data["flags"] = [] if notice.level is Level.COP_MIN else list(snapshot.flags)
    data["source"] = {
        "feed": snapshot.feed,
        "control_id": snapshot.control_id,
        "message_id": str(notice.message_id),
    }
    return orjson.dumps(
        {
            "type": f"notice.{notice.kind.lower()}",
            "timestamp": _instant(notice.created_at),
            "data": data,
        }
    )


def _charted(chart: bytes) -> tuple[list[Json], list[Json]]:
    """What only the chart carries: allergies, and which documents there are."""
    return allergies(chart), [msgspec.structs.asdict(document) for document in documents_of(chart)]


def allergies(chart: bytes) -> list[Json]:
    """The current allergies of a chart, also the statement that there are none; only the chart carries them."""
    if b'"AllergyIntolerance"' not in chart:
        return []
    resources = (entry.resource for entry in _decode_chart(chart).entry)
    return [
        _allergy(resource)
        for resource in resources
        if resource.resourceType == "AllergyIntolerance" and _is_current(resource)
    ]


class _Coding(msgspec.Struct, frozen=True):
    system: str = ""
    code: str = ""
    display: str = ""


class _Concept(msgspec.Struct, frozen=True):
    coding: tuple[_Coding, ...] = ()
    text: str = ""


class _Resource(msgspec.Struct, frozen=True):
    resourceType: str  # noqa: N815 - FHIR's name
    code: msgspec.Raw = msgspec.Raw(b"{}")  # other resources have other things under this name
    clinicalStatus: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815
    verificationStatus: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815
    criticality: str | None = None


class _Entry(msgspec.Struct, frozen=True):
    resource: _Resource


class _Chart(msgspec.Struct, frozen=True):
    entry: tuple[_Entry, ...] = ()


_decode_chart = msgspec.json.Decoder(_Chart).decode
_decode_concept = msgspec.json.Decoder(_Concept).decode


def _is_current(allergy: _Resource) -> bool:
    """Neither withdrawn nor over."""
    stated = (_decode_concept(allergy.clinicalStatus), _decode_concept(allergy.verificationStatus))
    return not any(coding.code in _NOT_CURRENT for concept in stated for coding in concept.coding)


def _allergy(resource: _Resource) -> Json:
    concept = _decode_concept(resource.code)
    coding = concept.coding[0] if concept.coding else _Coding()
    return {
        "system": coding.system,
        "code": coding.code,
        "text": concept.text or coding.display,
        "criticality": resource.criticality,
    }


def _sender(facility: FacilityId, facilities: Mapping[FacilityId, SendingFacility]) -> Json:
    sender = facilities.get(facility)
    if sender is None:
        return {"facility": facility, "name": None, "npi": None}
    return {"facility": facility, "name": sender.name, "npi": sender.npi}


def _receiver(recipient: Recipient) -> Json:
    role = "facility" if recipient.kind is RecipientKind.FACILITY else "practitioner"
    return {role: recipient.recipient_id.partition(":")[2], "name": recipient.name}


def _patient(snapshot: Snapshot, level: Level) -> Json:
    facts = snapshot.patient
    name = told_name(known(facts.names) or ())
    shown: Json = {"name": _person(name) if name else None}
    if level is Level.COP_MIN:
        return shown
    address = known(facts.address)
    return {
        "identifiers": _identifiers(snapshot),
        **shown,
        "birth_date": known(facts.birth_date),
        "sex": known(facts.sex),
        "phones": list(known(facts.phones) or ()),
        "postal_code": (address.postal_code or None) if address else None,
        "pcp": [_practitioner(one) for one in known(facts.pcp) or ()],
    }


def _identifiers(snapshot: Snapshot) -> list[Json]:
    key = snapshot.patient_key
    stated = () if snapshot.patient.identifiers is UNSET else snapshot.patient.identifiers
    pairs = [(one.domain, one.value) for one in stated if one.type in IDENTIFIER_TYPES]
    if (key.domain, key.value) not in pairs:
        pairs.insert(0, (key.domain, key.value))
    return [{"domain": domain, "value": value} for domain, value in pairs]


def _person(name: PersonName) -> Json:
    shown: Json = {"family": name.family, "given": list(name.given)}
    if name.suffix:
        shown["suffix"] = name.suffix
    return shown


def _practitioner(person: Practitioner) -> Json:
    return {"name": person.display, "npi": person.npi}


def _encounter(snapshot: Snapshot, level: Level) -> Json:
    facts = snapshot.encounter
    treating = known(facts.treating)
    shown: Json = {"treating": _practitioner(treating) if treating else None}
    if level is Level.COP_MIN:
        return shown
    disposition = known(facts.disposition)
    destination = known(facts.destination)
    location = known(facts.location)
    shown |= {
        "visit_number": snapshot.visit.value,
        "class": known(facts.patient_class),
        "admitted_at": _stated(known(facts.admitted)),
        "discharged_at": _stated(known(facts.discharged)),
        "expected_discharge_at": _stated(known(facts.expected_discharge)),
        "location": {"unit": location.unit, "room": location.room, "bed": location.bed} if location else None,
        "disposition": disposition.code if disposition else None,
        "care_setting": disposition.care_setting if disposition else None,
        "destination": {"name": destination.text, "npi": destination.npi} if destination else None,
    }
    if level is Level.FULL:
        shown["reason"] = known(facts.reason)
        shown["diagnoses"] = [
            {"system": one.system, "code": one.code, "text": one.text, "type": one.type}
            for one in known(facts.diagnoses) or ()
        ]
    return shown


def not_supplied(notice: Notice, snapshot: Snapshot, allergies: Sequence[Json], documents: Sequence[Json]) -> list[str]:
    """What a recipient expects at this level and does not find in this notice, so that nobody has to guess."""
    patient, encounter = snapshot.patient, snapshot.encounter
    missing = [] if known(patient.names) else ["name"]
    if not known(encounter.treating):
        missing.append("treating")
    if notice.level is Level.COP_MIN:
        return missing
    missing += _demographics_missing(patient)
    if notice.kind in _DISCHARGES:
        missing += _discharge_missing(encounter)
    if notice.level is Level.FULL:
        missing += [] if known(encounter.diagnoses) else ["diagnoses"]
        missing += [] if allergies else ["allergies"]
        missing += [] if documents or notice.kind not in _DISCHARGES else ["documents"]
    return missing


def _demographics_missing(patient: PatientFacts) -> list[str]:
    return [name for name in ("birth_date", "sex") if not known(getattr(patient, name))]


def _discharge_missing(encounter: EncounterFacts) -> list[str]:
    disposition = known(encounter.disposition)
    missing = [] if known(encounter.discharged) else ["discharged_at"]
    return missing if disposition and disposition.code else [*missing, "disposition"]


def _stated(time: Timestamp | None) -> str | None:
    return time.text if time else None


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
