"""Owns the FHIR R4 building blocks: system URIs, codings, identifiers, references, entries, bundles.

Everything is a plain dict, built once where it is constant. Constant parts are shared between resources, so
nothing here may be changed after it was built. No block ever holds an empty string, None or an empty list.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeAlias

from tocengine.formats.fhir.ids import URN
from tocengine.model.remembering import remembered

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | Decimal | bool | None"
"""Any FHIR value in JSON form (https://hl7.org/fhir/R4/json.html); a Decimal keeps its digits, as FHIR asks."""
Resource: TypeAlias = dict[str, Json]
"""A resource or one of its elements."""

NPI = "http://hl7.org/fhir/sid/us-npi"
CCN = "urn:oid:2.16.840.1.113883.4.336"
WITHDRAWN = ("entered-in-error", "refuted")
"""Codes of verificationStatus by which a diagnosis or an allergy is no assertion."""
UUIDS = "urn:ietf:rfc:3986"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
NUBC_DISPOSITION = "https://www.nubc.org/CodeSystem/PatDischargeStatus"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
DISCHARGE_DISPOSITION = TERMINOLOGY + "discharge-disposition"
ADMIT_SOURCE = TERMINOLOGY + "admit-source"
SERVICE_TYPE = TERMINOLOGY + "service-type"
DIAGNOSIS_ROLE = TERMINOLOGY + "diagnosis-role"
ACT_CODE = TERMINOLOGY + "v3-ActCode"
NULL_FLAVOR = TERMINOLOGY + "v3-NullFlavor"
PARTICIPATION = TERMINOLOGY + "v3-ParticipationType"
MARITAL_STATUS = TERMINOLOGY + "v3-MaritalStatus"
PRIORITY = TERMINOLOGY + "v3-ActPriority"
RELIGION = TERMINOLOGY + "v3-ReligiousAffiliation"
ROLE_CODE = TERMINOLOGY + "v3-RoleCode"
IDENTIFIER_TYPE = TERMINOLOGY + "v2-0203"
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
DA_VINCI = "http://hl7.org/fhir/us/davinci-alerts/StructureDefinition/"
CPT = "http://www.ama-assn.org/go/cpt"
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
SNOMED = "http://snomed.info/sct"
STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"


@remembered(4096)
def local_system(*parts: str) -> str:
    """A URI of the engine's own for codes and identifiers that name no better one.

    ``local_system("stj", "visit")`` is ``urn:tocengine:stj:visit``. Characters a URN cannot hold are escaped.
    """
    return "urn:tocengine:" + ":".join(_escaped(part) for part in parts)


def _escaped(part: str) -> str:
    if part.isascii() and part.replace("-", "").replace(".", "").replace("_", "").isalnum():
        return part
    return "".join(
        chr(byte) if (chr(byte).isalnum() and byte < 128) or chr(byte) in "-._" else f"%{byte:02X}"
        for byte in part.encode()
    )


def coding(system: str, code: str, display: str = "") -> Resource:
    """A Coding."""
    if display:
        return {"system": system, "code": code, "display": display}
    return {"system": system, "code": code}


def concept(*codings: Resource, text: str = "") -> Resource:
    """A CodeableConcept of `codings` and what the source called it."""
    found: Resource = {}
    if codings:
        found["coding"] = list(codings)
    if text:
        found["text"] = text
    return found


def identifier(system: str, value: str, kind: Resource | None = None) -> Resource:
    """An Identifier; `kind` is a CodeableConcept (`identifier_type`)."""
    if kind is None:
        return {"system": system, "value": value}
    return {"type": kind, "system": system, "value": value}


_IDENTIFIER_TYPES = {
    code: concept(coding(IDENTIFIER_TYPE, code))
    for code in (
        "AC ACSN AM AMA AN ANC AND ANON ANT APRN ASID BA BC BCFN BCT BR BRN BSNR CC CONM CY CZ DC DCFN DDS DEA DFN DI "
        "DL DN DO DP DPM DR DS EI EN ESN FDR FDRFN FI FILL GI GL GN HC IND JHN LACSN LANR LI LN LR MA MB MC MCD MCN "
        "MCR MCT MD MI MR MRT MS NBSNR NCT NE NH NI NII NIIP NP NPI OBI OD PA PC PCN PE PEN PHC PHE PHO PI PLAC PN "
        "PNT PPIN PPN PRC PRN PT QA RI RN RPH RR RRI RRP SB SID SL SN SNBSN SNO SP SR SS STN TAX TN TPR TRL U UDI "
        "UPIN USID VN VP VS WC WCN WP XV XX"
    ).split()
}
"""The codes of HL7 table 0203."""


AUTHOR, ASSEMBLER = (concept(coding(TERMINOLOGY + "provenance-participant-type", c)) for c in ("author", "assembler"))
"""Who said it, and who put it together: Provenance.agent.type."""


def is_identifier_type(code: str) -> bool:
    """Whether `code` is one of HL7 table 0203."""
    return code in _IDENTIFIER_TYPES


def identifier_type(code: str) -> Resource:
    """The CodeableConcept of a code of HL7 table 0203; of anything else what was sent, in words."""
    return _IDENTIFIER_TYPES.get(code) or concept(text=code)


def extend(element: Resource, url: str, **value: Json) -> None:
    """Adds an Extension to `element`, which is being built; `value` is one ``value[x]``."""
    known = element.setdefault("extension", [])
    assert isinstance(known, list)
    known.append({"url": url, **value})


def reference(resource_id: str) -> Resource:
    """A Reference to a resource in the same bundle."""
    return {"reference": URN + resource_id}


def absent(reason: str) -> Resource:
    """The companion of a primitive that is missing for `reason` (``unknown``, ``masked``): use as ``_element``."""
    return {"extension": [{"url": DATA_ABSENT, "valueCode": reason}]}


def profiled(*profiles: str) -> Resource:
    """A Meta that claims conformance to `profiles`."""
    return {"profile": list(profiles)}


CONFIDENTIALITY = TERMINOLOGY + "v3-Confidentiality"
RESTRICTED = coding(CONFIDENTIALITY, "R")
"""The security label of what its sender marked (HL7 v2-to-FHIR, PV2-22)."""


def entry(resource: Resource) -> Resource:
    """A Bundle entry whose fullUrl is the resource's id as a URN."""
    return {"fullUrl": f"{URN}{resource['id']}", "resource": resource}


def collection(resources: Iterable[Resource]) -> Resource:
    """The `collection` Bundle of `resources`."""
    bundle: Resource = {"resourceType": "Bundle", "type": "collection"}
    entries: list[Json] = [entry(resource) for resource in resources]
    if entries:
        bundle["entry"] = entries
    return bundle


def references_in(value: Json) -> Iterable[str]:
    """Every ``reference`` string below `value`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "reference" and isinstance(inner, str):
                yield inner
            elif isinstance(inner, dict | list):
                yield from references_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references_in(inner)


def is_withdrawn(resource: Resource) -> bool:
    """Whether a Condition or AllergyIntolerance asserts nothing by its verificationStatus (FHIR R4)."""
    match resource.get("verificationStatus"):
        case {"coding": [*codings]}:
            return any(isinstance(each, dict) and each.get("code") in WITHDRAWN for each in codings)
    return False


def concept_code(value: Json, system: str) -> str | None:
    """The code of `system` in a CodeableConcept, if it has one."""
    codings = value.get("coding") if isinstance(value, dict) else None
    for item in codings if isinstance(codings, list) else ():
        if isinstance(item, dict) and item.get("system") == system and isinstance(item.get("code"), str):
            return str(item["code"])
    return None
