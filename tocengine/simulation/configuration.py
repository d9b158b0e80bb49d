"""Owns the simulated setting as files: two hospitals' feeds, the partners in the directory, and where they listen."""

import base64
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tocengine.simulation.davinci import MRN_SYSTEM, VISIT_SYSTEM
from tocengine.simulation.day import LINDGREN, PATEL
from tocengine.simulation.people import npi


@dataclass(frozen=True)
class Ports:
    """Where everything listens on loopback."""

    mllp: int
    http: int
    admin: int

    @classmethod
    def free(cls) -> "Ports":
        """Three ports nobody listens on now."""
        sockets = [socket.socket() for _ in range(3)]
        try:
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(each.getsockname()[1] for each in sockets))
        finally:
            for each in sockets:
                each.close()


def write_settings(folder: Path, ports: Ports, extra: str = "") -> Path:
    """`tocengine.toml` of the simulated setting; `extra` is appended (an external database, Kafka, short timers)."""
    path = folder / "tocengine.toml"
    path.write_text(
        f"""
[engine]
data_dir = "data"
base_url = "https://toc.example.org"

[http]
listen = "127.0.0.1:{ports.http}"

[admin]
listen = "127.0.0.1:{ports.admin}"

[delivery]
allowed_networks = ["127.0.0.0/8"]  # the simulated partners live here
backoff = {{first_s = 0.2, factor = 2, max_s = 5, jitter = 0.2}}

[[identifier_domains]]
name = "STJ"
system = "urn:oid:2.16.840.1.113883.19.5"

[[identifier_domains]]
name = "VALLEY"
system = "{MRN_SYSTEM}"

[[identifier_domains]]
name = "VALLEY-VISIT"
system = "{VISIT_SYSTEM}"

[[facilities]]
id = "stj"
name = "St. Jude Hospital"
npi = "{npi(2)}"

[[facilities]]
id = "valley"
name = "Valley General"
npi = "{npi(8)}"

[[feeds]]
name = "stj-adt"
facility = "stj"
protocol = "mllp"
listen = "127.0.0.1:{ports.mllp}"
profile = "stj"

[[feeds]]
name = "valley-fhir"
facility = "valley"
protocol = "fhir"
profile = "valley"

[profiles.stj]
match = {{msh3 = "ADTOUT", msh4 = "STJ"}}
time_zone = "America/New_York"
mrn_authority = "STJ"
holdback_s = 2

[profiles.valley]
time_zone = "America/New_York"
{extra}
""",
        encoding="utf-8",
    )
    return path


def write_directory(folder: Path, receivers: int, secret: bytes, panels: Mapping[str, Sequence[str]]) -> Path:
    """`directory.yaml` with the partners; `receivers` is the port they all listen on."""
    base = f"http://127.0.0.1:{receivers}"
    signing = "whsec_" + base64.b64encode(secret).decode()

    def webhook(name: str) -> list[dict[str, object]]:
        return [{"id": f"{name}-hook", "channel": "webhook", "url": f"{base}/webhook/{name}", "secret": signing}]

    def fhir(name: str) -> list[dict[str, object]]:
        url = f"{base}/fhir/{name}"
        return [{"id": f"{name}-fhir", "channel": "fhir", "url": url, "accepts_cancel": True}]

    directory = {
        "version": 1,
        "facilities": [
            _facility("sunnyside", "Sunnyside Rehab", "SNF", npi(1), ["SUNNYSIDE REHAB"], webhook("sunnyside")),
            _facility(
                "lakeview",
                "Lakeview Care Center",
                "SNF",
                npi(4),
                [{"feed": "stj-adt", "value": "LAKE01"}],
                fhir("lakeview"),
            ),
            _facility("harbor", "Harbor Home Health", "HHA", npi(61), ["HARBOR HOME HEALTH"], webhook("harbor")),
        ],
        "practitioners": [
            {
                "id": "patel",
                "name": "Ravi Patel",
                "npi": PATEL.npi,
                "endpoints": webhook("patel"),
                "subscription": {"level": "STANDARD"},
            },
            {"id": "lindgren", "name": "Siv Lindgren", "npi": LINDGREN.npi},
        ],
        "panels": [
            {"facility": facility, "members": [{"domain": "STJ", "value": value} for value in members]}
            for facility, members in panels.items()
        ],
    }
    path = folder / "directory.yaml"
    path.write_text(yaml.safe_dump(directory, sort_keys=False), encoding="utf-8")
    return path


def _facility(
    name: str, title: str, kind: str, number: str, aliases: list[object], endpoints: list[dict[str, object]]
) -> dict[str, object]:
    return {
        "id": name,
        "name": title,
        "type": kind,
        "npi": number,
        "aliases": aliases,
        "endpoints": endpoints,
        "subscription": {"level": "FULL"},
    }
