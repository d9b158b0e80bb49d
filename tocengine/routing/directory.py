"""Owns the directory in memory: an immutable snapshot of who can be told, indexed by every name a message may use."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from tocengine.model.directory import Recipient, RecipientKind
from tocengine.model.facts import Destination
from tocengine.model.ids import FeedName, RecipientId
from tocengine.model.remembering import remembered

_NO_WORD = re.compile(r"[\W_]+")


@remembered(4096)
def normalized_alias(text: str) -> str:
    """The spelling under which an alias is compared: compatibility forms, case, punctuation and spacing do not count.

    Nothing else is ignored: "Sunnyside" is not "Sunnyside Rehab" (domain section 3: fuzzy matches are for people).
    """
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


class Problem(StrEnum):
    """Why a destination names no recipient."""

    NOT_NAMED = "not named"
    UNKNOWN = "unknown"
    AMBIGUOUS = "ambiguous"


class DestinationMatch(msgspec.Struct, frozen=True):
    """What a destination means: a recipient and how it was recognized, or the problem."""

    recipient_id: RecipientId | None = None
    how: str = ""  # npi | ccn | alias
    problem: Problem | None = None

    @property
    def explicit(self) -> bool:
        """Named by a national identifier, not by a spelling."""
        return self.how in ("npi", "ccn")


NOT_NAMED = DestinationMatch(problem=Problem.NOT_NAMED)
Ids = tuple[RecipientId, ...]


class Directory:
    """One version of the directory. Implements ports.DestinationResolver."""

    __slots__ = ("_aliases", "_ccns", "_feed_aliases", "_npis", "_recipients", "version")

    def __init__(self, version: int = 0, recipients: Iterable[Recipient] = ()) -> None:
        self.version = version
        self._recipients = {recipient.recipient_id: recipient for recipient in recipients}
        self._npis: dict[str, Ids] = {}
        self._ccns: dict[str, Ids] = {}
        self._aliases: dict[str, Ids] = {}
        self._feed_aliases: dict[tuple[str, str], Ids] = {}
        for recipient in self._recipients.values():
            self._index(recipient)

    def _index(self, recipient: Recipient) -> None:
        own = recipient.recipient_id
        if recipient.npi:
            self._npis[recipient.npi] = (*self._npis.get(recipient.npi, ()), own)
        if recipient.ccn:
            self._ccns[recipient.ccn] = (*self._ccns.get(recipient.ccn, ()), own)
        for alias in recipient.aliases:
            spelling = normalized_alias(alias.value)
            if alias.feed is None:
                known = self._aliases.get(spelling, ())
                self._aliases[spelling] = known if own in known else (*known, own)
            else:
                key = (alias.feed, spelling)
                self._feed_aliases[key] = (*self._feed_aliases.get(key, ()), own)

    def __len__(self) -> int:
        return len(self._recipients)

    @property
    def recipients(self) -> Mapping[RecipientId, Recipient]:
        """Everyone who can be told, by id."""
        return self._recipients

    def recipient(self, recipient_id: RecipientId) -> Recipient | None:
        """The facility or practitioner, or None where it is not (or no longer) in the directory."""
        return self._recipients.get(recipient_id)

    def by_npi(self, npi: str) -> Ids:
        """Everyone with this national provider identifier: several locations may share an organization's."""
        return self._npis.get(npi, ())

    def resolve(self, feed: FeedName, destination: Destination) -> RecipientId | None:
        """The one facility that `destination` means, None where nobody or more than one matches."""
        return self.match(feed, destination).recipient_id

    def match(self, feed: FeedName, destination: Destination) -> DestinationMatch:
        """By NPI, then CCN, then exact alias (domain section 3). Where one of them fits several facilities, the
        next ones may narrow the choice; they never widen it."""
        ways = self._ways(feed, destination)
        if ways is None:
            return NOT_NAMED
        choice: frozenset[RecipientId] = frozenset()
        for how, ids in ways:
            found = frozenset(ids)
            choice = (choice & found or choice) if choice else found
            if len(choice) == 1:
                return DestinationMatch(next(iter(choice)), how)
        return DestinationMatch(problem=Problem.AMBIGUOUS if choice else Problem.UNKNOWN)

    def _ways(self, feed: FeedName, destination: Destination) -> tuple[tuple[str, Ids], ...] | None:
        spelling = normalized_alias(destination.text) if destination.text else ""
        if not (spelling or destination.npi or destination.ccn):
            return None
        by_alias = self._feed_aliases.get((feed, spelling)) or self._aliases.get(spelling, ())
        return (
            ("npi", self._facilities(self._npis.get(destination.npi or "", ()))),
            ("ccn", self._facilities(self._ccns.get(destination.ccn or "", ()))),
            ("alias", self._facilities(by_alias)),
        )

    def _facilities(self, ids: Ids) -> Ids:
        return tuple(i for i in ids if self._recipients[i].kind is RecipientKind.FACILITY) if ids else ()
