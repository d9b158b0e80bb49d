"""Taking in FHIR messages over HTTP: the request, the clients that may send, and the server."""
