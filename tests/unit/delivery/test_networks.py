"""Which addresses may be connected to."""

import pytest

from tocengine.delivery.networks import NetworkGuard
from tocengine.errors import ConfigurationError

ALL = ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "::1/128", "0.0.0.0/0", "::/0")


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert NetworkGuard().permits(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"],
)
def test_inner_addresses_only_where_listed(address: str) -> None:
    assert not NetworkGuard().permits(address)
    assert NetworkGuard(ALL).permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "not an address",
    ],
)
def test_some_addresses_never(address: str) -> None:
    assert not NetworkGuard(ALL).permits(address)


def test_a_network_that_is_none_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        NetworkGuard(["10.1.0.0/33"])
