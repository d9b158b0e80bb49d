"""FHIR R4 content as plain dicts: building blocks, the chart of an encounter, Da Vinci notifications, and checks."""
