"""Owns how a resource that is contained in another one is read: as an entry of its own, under a made-up address."""

from collections.abc import Mapping

from tocengine.formats.fhir.resources import Json, Resource, local_system

_TAKEN_OUT = frozenset({"Practitioner", "PractitionerRole", "Organization", "Location"})


def with_contained(entries: list[tuple[str, Resource]]) -> list[tuple[str, Resource]]:
    """`entries`, then the people and places they contain, and the diagnoses of an Encounter.

    A ``#id`` leads from the resource that contains it alone. A Patient is not taken out: what is contained has no
    identity outside of its container (FHIR R4, contained resources). Resources are copied and not changed.
    """
    found, taken_out = [], []
    for position, (url, resource) in enumerate(entries):
        inner = {
            f"#{each['id']}": (local_system("contained", str(position), str(each["id"])), each)
            for each in contained_in(resource)
            if each["resourceType"] in _TAKEN_OUT
            or (each["resourceType"] == "Condition" and resource["resourceType"] == "Encounter")
        }
        if inner:
            addresses = {"#": url} | {name: address for name, (address, _) in inner.items()}
            resource = {name: _led(value, addresses) for name, value in resource.items()}
            for address, each in inner.values():  # without its id, which is none outside
                copied = {name: _led(value, addresses) for name, value in each.items() if name != "id"}
                taken_out.append((address, copied))
        found.append((url, resource))
    return found + taken_out


def contained_in(resource: Resource) -> list[Resource]:
    """What `resource` contains, as far as it can be referred to."""
    listed = resource.get("contained")
    return [
        each
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict) and isinstance(each.get("id"), str) and isinstance(each.get("resourceType"), str)
    ]


def _led(value: Json, addresses: Mapping[str, str]) -> Json:
    if isinstance(value, list):
        return [_led(each, addresses) for each in value]
    if not isinstance(value, dict):
        return value
    led = {name: _led(inner, addresses) for name, inner in value.items()}
    target = value.get("reference")
    return led | {"reference": addresses[target]} if isinstance(target, str) and addresses.get(target) else led
