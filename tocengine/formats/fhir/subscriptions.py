"""Owns what a subscription notification says of its subscription: which events it carries, by number.

Subscriptions R5 Backport 1.2 in R4: Bundle of type history, Parameters first; R4B senders put a SubscriptionStatus
there instead, R5 names the Bundle type subscription-notification.
"""

from collections.abc import Iterator

import msgspec

from tocengine.formats.fhir.json_body import refuse
from tocengine.formats.fhir.resources import Json, Resource

HANDSHAKE, HEARTBEAT, EVENTS, QUERY_EVENTS = "handshake", "heartbeat", "event-notification", "query-event"
_TYPES = frozenset({HANDSHAKE, HEARTBEAT, EVENTS, QUERY_EVENTS, "query-status"})
_STATUS_PATH = "Bundle.entry[0].resource"


class SubscriptionEvent(msgspec.Struct, frozen=True):
    """One event: its number counts from the start of the subscription, `focus` is the URL of what it is about."""

    number: int
    focus: str = ""


class SubscriptionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a notification says of its subscription; `total` counts all events since it started, this one included."""

    subscription: str  # its URL
    type: str
    status: str = ""
    total: int = 0
    events: tuple[SubscriptionEvent, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the events carried."""
        return tuple(event.number for event in self.events)


def is_subscription_bundle(bundle: Resource) -> bool:
    """Whether this is the kind of Bundle that subscription notifications come in."""
    return bundle.get("type") in ("history", "subscription-notification")


def read_status(bundle: Resource) -> SubscriptionStatus:
    """Of a notification Bundle. Raises SyntaxRefusedError where it says no status, or one without its numbers."""
    resource = _first_resource(bundle)
    if resource.get("resourceType") == "Parameters":
        values = _Parameters(resource)
        found = SubscriptionStatus(
            subscription=_reference(values.value("subscription")),
            type=_text(values.value("type")),
            status=_text(values.value("status")),
            total=_number(values.value("events-since-subscription-start")),
            events=tuple(_event(each, f"{_STATUS_PATH}.parameter") for each in values.parts("notification-event")),
        )
    elif resource.get("resourceType") == "SubscriptionStatus":
        named = [item for item in _list(resource.get("notificationEvent")) if isinstance(item, dict)]
        found = SubscriptionStatus(
            subscription=_reference(resource.get("subscription")),
            type=_text(resource.get("type")),
            status=_text(resource.get("status")),
            total=_number(resource.get("eventsSinceSubscriptionStart")),
            events=tuple(_named_event(item, f"{_STATUS_PATH}.notificationEvent") for item in named),
        )
    else:
        text = "The first entry of a subscription notification is its status (Parameters)."
        refuse("status_not_first", text, "Bundle.entry[0]", "structure")
    if not found.subscription:
        refuse("subscription_missing", "The notification names no subscription.", _STATUS_PATH, "required")
    if found.type not in _TYPES:
        refuse("notification_type_unknown", "The type of the notification is missing or unknown.", _STATUS_PATH)
    if found.type == QUERY_EVENTS:
        found = msgspec.structs.replace(found, type=EVENTS)
    return found


class _Parameters:
    """Named values and parts of a Parameters resource, or of one part of it."""

    def __init__(self, resource: Resource, name: str = "parameter") -> None:
        self._items = [item for item in _list(resource.get(name)) if isinstance(item, dict)]

    def value(self, name: str) -> Json:
        """The value[x] of the first one of this name."""
        for item in self._items:
            if item.get("name") == name:
                return next((value for key, value in item.items() if key.startswith("value")), None)
        return None

    def parts(self, name: str) -> "Iterator[_Parameters]":
        """The parts of each one of this name."""
        for item in self._items:
            if item.get("name") == name:
                yield _Parameters(item, "part")


def _event(parts: _Parameters, path: str) -> SubscriptionEvent:
    number = _number(parts.value("event-number"))
    if number < 1:
        refuse("event_number_missing", "An event has no number.", path, "required")
    return SubscriptionEvent(number, _reference(parts.value("focus")))


def _named_event(item: Resource, path: str) -> SubscriptionEvent:
    number = _number(item.get("eventNumber"))
    if number < 1:
        refuse("event_number_missing", "An event has no number.", path, "required")
    return SubscriptionEvent(number, _reference(item.get("focus")))


def _first_resource(bundle: Resource) -> Resource:
    listed = bundle.get("entry")
    first = listed[0] if isinstance(listed, list) and listed else None
    resource = first.get("resource") if isinstance(first, dict) else None
    return resource if isinstance(resource, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _reference(value: Json) -> str:
    return _text(value.get("reference")) if isinstance(value, dict) else ""


def _number(value: Json) -> int:
    """An integer64 is a string in JSON; below 10^18 it fits the database. 0 where it is none."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
