"""Owns what the engine says of itself: the CapabilityStatement and the SMART configuration."""

from datetime import datetime

import orjson

from tocengine import __version__
from tocengine.adapters.fhir.request import FHIR_JSON
from tocengine.adapters.fhir.smart import ALGORITHMS
from tocengine.config import HttpSettings
from tocengine.formats.fhir.resources import TERMINOLOGY, Resource, coding, concept

_GUIDES = (
    "http://hl7.org/fhir/us/davinci-alerts/ImplementationGuide/hl7.fhir.us.davinci-alerts|1.1.0",
    "http://hl7.org/fhir/us/pacio-toc/ImplementationGuide/hl7.fhir.us.pacio-toc|1.0.0",
    "http://hl7.org/fhir/uv/subscriptions-backport/ImplementationGuide/hl7.fhir.uv.subscriptions-backport|1.2.0-ballot",
)


def token_endpoint(base_url: str) -> str:
    """Where access tokens are given: the audience of client assertions too."""
    return f"{base_url}/auth/token"


def capability_statement(settings: HttpSettings, base_url: str, now: datetime) -> bytes:
    """FHIR R4, of this instance. `base_url` is the FHIR base, without a slash at its end."""
    security: Resource = {
        "service": [concept(coding(TERMINOLOGY + "restful-security-service", "SMART-on-FHIR"))],
        "description": "SMART Backend Services (.well-known), an API key as a bearer token, or a client certificate.",
    }
    bundle: Resource = {
        "type": "Bundle",
        "interaction": [{"code": "create"}],
        "documentation": "A transaction about one Encounter, a document, or a subscription notification (history).",
    }
    process: Resource = {
        "name": "process-message",
        "definition": "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message",
        "documentation": "202 once durable; no response message. async and response-url are not supported.",
    }
    statement: Resource = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": now.isoformat(timespec="seconds"),
        "publisher": "tocengine",
        "kind": "instance",
        "software": {"name": "tocengine", "version": __version__},
        "implementation": {"description": "Takes in what hospitals say of admissions and discharges", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON],
        "implementationGuide": list(_GUIDES),
        "rest": [
            {
                "mode": "server",
                "documentation": f"Bodies up to {settings.max_body_bytes} bytes, {settings.max_entries} entries.",
                "security": security,
                "resource": [bundle],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "operation": [process],
            }
        ],
    }
    return orjson.dumps(statement)


def smart_configuration(base_url: str) -> bytes:
    """``.well-known/smart-configuration`` (SMART App Launch 2.0) of a server for backend services alone."""
    return orjson.dumps(
        {
            "issuer": base_url,
            "token_endpoint": token_endpoint(base_url),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
            "scopes_supported": ["system/*.c", "system/Bundle.c", "system/*.write"],
            "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
        }
    )
