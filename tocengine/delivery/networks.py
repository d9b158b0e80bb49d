"""Owns which addresses the engine may connect to: the guard against requests into its own network.

The check is made on the address a socket is about to connect to, after name resolution, so that a name
which resolves differently the second time (DNS rebinding) gains nothing.
"""

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp.connector import AddrInfoType

from tocengine.errors import ConfigurationError

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_NEVER: tuple[IPv4Network | IPv6Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),  # link-local; cloud metadata lives here
    IPv4Network("100.100.100.200/32"),  # cloud metadata outside the link-local range
    IPv4Network("168.63.129.16/32"),  # a cloud host's agent, on a public address
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("fd00:ec2::254/128"),  # cloud metadata over IPv6
    IPv6Network("fd20:ce::254/128"),
    IPv6Network("ff00::/8"),
)


class NetworkGuard:
    """Answers whether an address may be connected to, and makes sockets only for those that may."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """`allowed` are CIDR networks of ``[delivery] allowed_networks``. Raises ConfigurationError."""
        try:
            self._allowed = tuple(ip_network(text) for text in allowed)
        except ValueError as error:
            raise ConfigurationError(
                f"[delivery] allowed_networks: {error}", hint='write networks as "10.1.0.0/16"'
            ) from None

    def permits(self, address: str) -> bool:
        """Whether a connection to this numeric address (a scope id is ignored) is allowed."""
        try:
            outer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return all(self._permits(one) for one in _meanings(outer))

    def _permits(self, address: IPv4Address | IPv6Address) -> bool:
        if any(address in network for network in _NEVER if network.version == address.version):
            return False
        if address.is_global:
            return True
        return any(address in network for network in self._allowed if network.version == address.version)

    def socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for one resolved address: aiohttp's `socket_factory`. Raises PermissionError for a forbidden one."""
        family, kind, protocol, _name, sockaddr = info
        if not self.permits(str(sockaddr[0])):
            raise PermissionError(errno.EACCES, "address not allowed")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def _meanings(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """What an address leads to: the IPv4 one inside a mapped, 6to4, Teredo or NAT64 address, else itself."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.sixtofour:
        return address, address.sixtofour
    if address.teredo:
        return address, *address.teredo
    return (address,)
