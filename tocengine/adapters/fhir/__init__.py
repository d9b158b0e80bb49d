"""Taking in FHIR messages over HTTP: the request, the clients that may send, and the server."""

from tocengine.adapters.fhir.clients import Client, ClientStore, add_client, list_clients, revoke_client
from tocengine.adapters.fhir.server import FhirServer, create_app

__all__ = ["Client", "ClientStore", "FhirServer", "add_client", "create_app", "list_clients", "revoke_client"]
