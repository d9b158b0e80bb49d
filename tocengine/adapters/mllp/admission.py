"""Owns who may connect to a feed and how much of it: addresses, counts, and bytes held. Pure."""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

FAIR_BYTES: Final = 65_536
"""What every connection may hold whatever the others hold; ordinary messages are far smaller."""
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Closed(StrEnum):
    """Why the engine closed a connection without a word: values of the metric's label `reason`."""

    DRAINING = "draining"
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    ADDRESS_LIMIT = "address_limit"  # too many from one address
    LIMIT = "limit"  # too many in all
    MADE_ROOM = "made_room"  # never sent a message, and another one wanted in
    HANDSHAKE = "handshake"  # TLS did not come about
    CERTIFICATE = "certificate"  # not one of those the feed is for
    IDLE = "idle"
    ANSWERS_NOT_READ = "answers_not_read"


class Admission:
    """Counts connections by address. `networks` are the only ones let in; none named, all are."""

    def __init__(self, limit: int, per_address: int, networks: Sequence[str] = ()) -> None:
        self._limit, self._per_address = limit, per_address
        self._networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, networks))
        self._by_address: Counter[str] = Counter()
        self.count = 0

    def refusal(self, address: str) -> Closed | None:
        """Why a connection from `address` cannot come in now; LIMIT may be cured by closing another one."""
        if self._networks and not self._known(address):
            return Closed.ADDRESS_NOT_ALLOWED
        if self._by_address[address] >= self._per_address:
            return Closed.ADDRESS_LIMIT
        return Closed.LIMIT if self.count >= self._limit else None

    def enter(self, address: str) -> None:
        """One more."""
        self._by_address[address] += 1
        self.count += 1

    def leave(self, address: str) -> None:
        """One less."""
        self.count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def _known(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)


def plain_address(address: str) -> str:
    """An address as people write it: an IPv4 one that came through an IPv6 socket without its prefix, no zone."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


Holder = TypeVar("Holder")


class Budget(Generic[Holder]):
    """What the connections of a feed hold in memory together.

    Each may hold `FAIR_BYTES`. Beyond that it may read on only while all together are within `limit`, or where it is
    the one that has been beyond it for longest: so memory is bounded, and one large message after the other arrives.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Holder, int] = {}
        self._large: dict[Holder, None] = {}  # in the order in which they became so
        self.total = 0

    def hold(self, holder: Holder, size: int) -> None:
        """`holder` holds `size` bytes now."""
        self.total += size - self._held.get(holder, 0)
        if size:
            self._held[holder] = size
        else:
            self._held.pop(holder, None)
        if size > FAIR_BYTES:
            self._large.setdefault(holder)
        else:
            self._large.pop(holder, None)

    def may_grow(self, holder: Holder) -> bool:
        """Whether `holder` may read more."""
        if holder not in self._large or self.total <= self._limit:
            return True
        return holder is next(iter(self._large))

    @property
    def large(self) -> list[Holder]:
        """Those beyond their fair share, the longest first."""
        return list(self._large)
