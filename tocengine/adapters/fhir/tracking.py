"""Owns where the sender of a message finds out what became of it: an address that only this engine can have made.

``BASE/message/ID.TAG``: the tag is a keyed hash of the message's id and its sender, so that no list of accepted
messages has to be kept beside the log, and nobody can ask about a message of somebody else.
"""

import hmac
from uuid import UUID

import orjson

from tocengine.adapters.fhir.request import Answer
from tocengine.errors import UnavailableError
from tocengine.model.ids import MessageId
from tocengine.postgres import CONNECTION_ERRORS, Pool, load_queries

QUERIES = load_queries(__package__)
_TAG_HEX = 32
STATUS_SYSTEM = "urn:tocengine:message-status"


class TrackingLinks:
    """Makes and reads the addresses; `key` is the same in every process of the engine."""

    def __init__(self, key: bytes, base_url: str) -> None:
        self._key = hmac.digest(key, b"tocengine message location", "sha256")
        self._base = base_url

    def location(self, message_id: MessageId, sender: str) -> str:
        """The address for `sender`, who sent the message."""
        return f"{self._base}/message/{message_id}.{self._tag(message_id, sender)}"

    def message_id(self, name: str, sender: str) -> MessageId | None:
        """The message an address's last part names, if it was given to `sender`."""
        identity, _, tag = name.partition(".")
        try:
            message_id = MessageId(UUID(identity))
        except ValueError:
            return None
        return message_id if hmac.compare_digest(tag.encode(), self._tag(message_id, sender).encode()) else None

    def _tag(self, message_id: MessageId, sender: str) -> str:
        return hmac.digest(self._key, f"{message_id}\x1f{sender}".encode(), "sha256").hex()[:_TAG_HEX]


async def message_status(pool: Pool, message_id: MessageId) -> Answer:
    """What became of an accepted message, without content: received, tracked, not-handled, or quarantined with why.

    Raises UnavailableError.
    """
    try:
        row = await pool.fetchrow(QUERIES["message_status"], message_id)
    except CONNECTION_ERRORS as error:
        raise UnavailableError("the message's status cannot be read") from error
    disposition = str(row["disposition"]) if row and row["disposition"] else ""
    if row and row["reason"] and row["state"] == "OPEN":
        return _status(
            "quarantined", "It is stored and waits for a person.", message_id, row["reason"], row["location"]
        )
    if not disposition:
        return _status("received", "It is stored, and not tracked yet.", message_id)
    if disposition == "TRACKED":
        return _status("tracked", "It was applied to its encounter.", message_id)
    return _status(disposition.lower().replace("_", "-"), "It is stored and led to nothing.", message_id)


def _status(code: str, text: str, message_id: MessageId, reason: str = "", location: str = "") -> Answer:
    issue: dict[str, object] = {
        "severity": "warning" if reason else "information",
        "code": "informational",
        "details": {"coding": [{"system": STATUS_SYSTEM, "code": code}], "text": text},
        "diagnostics": f"message {message_id}" + (f": {reason}" if reason else ""),
    }
    if location:
        issue["expression"] = [location]
    return Answer(status=200, body=orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]}))
