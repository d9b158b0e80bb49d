"""One module per area of a message: each says which field goes where, in facts and in FHIR."""
