"""Owns what one key of the configuration says about another: contradictions, names that lead nowhere, missing files."""

import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tocengine.config import Config, FeedSettings, TlsSettings, listen_address, sharing_listeners
from tocengine.model.identity import valid_npi
from tocengine.model.profile import HL7V2_ONLY, SNAPSHOT_SEGMENTS, VISIT_KEYS, SenderMatch, SourceProfile

Place: TypeAlias = tuple[str | int, ...]
Refuse: TypeAlias = Callable[[Place, str, str], NoReturn]

_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:?){32}")


class Finding(msgspec.Struct, frozen=True):
    """Something that cannot be, at the key that says it."""

    place: Place
    text: str
    hint: str = ""


def check(config: Config, document: dict[str, object], refuse: Refuse) -> None:
    """Refuses the first contradiction. `document` tells what was written from what is a default."""
    checks = (
        _check_engine,
        _check_listeners,
        _check_shared_listeners,
        _check_names,
        _check_feeds,
        _check_profiles,
        _check_event_log,
        _check_keys,
        _check_delivery,
    )
    for each in checks:
        for finding in each(config):
            refuse(finding.place, finding.text, finding.hint)
    kafka = _table(_table(document.get("event_log")).get("kafka"))
    if config.event_log.kind == "kafka" and "bootstrap_servers" not in kafka:
        refuse(
            ("event_log", "kind"),
            'event_log.kind is "kafka" and event_log.kafka.bootstrap_servers is not set',
            'such as "kafka-1:9092,kafka-2:9092"',
        )


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _check_engine(config: Config) -> Iterator[Finding]:
    yield from _check_url(("engine", "base_url"), config.engine.base_url)
    if not config.engine.name.strip():
        yield Finding(("engine", "name"), "engine.name is empty")
    if config.alerts.webhook is not None:
        yield from _check_url(("alerts", "webhook", "url"), config.alerts.webhook.url)
        yield from _check_secret(("alerts", "webhook", "secret"), config.alerts.webhook.secret)
    yield from _check_secret(("postgres", "dsn"), config.postgres.dsn)
    if config.postgres.dsn and not re.match(r"(postgres(ql)?://|env:|file:)", config.postgres.dsn):
        yield Finding(("postgres", "dsn"), "postgres.dsn is no postgresql:// URL", "or env:NAME, file:PATH")


def _check_url(place: Place, url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Finding(place, f"{'.'.join(map(str, place))} is no http or https URL")


def _check_secret(place: Place, reference: str) -> Iterator[Finding]:
    """A file that is named must be there; an environment variable may be set for one role alone."""
    if reference.startswith("file:") and not Path(reference[5:]).is_file():
        yield Finding(place, f"there is no file {reference[5:]}")


def _check_file(place: Place, path: Path | None) -> Iterator[Finding]:
    if path is not None and not path.is_file():
        yield Finding(place, f"there is no file {path}")


def _check_listeners(config: Config) -> Iterator[Finding]:
    yield from _check_tls(("http", "tls"), config.http.tls)
    wanted: list[tuple[Place, str]] = [
        (("http", "listen"), config.http.listen),
        (("admin", "listen"), config.admin.listen),
    ]
    wanted += [
        (("feeds", config.feeds.index(sharing[0]), "listen"), sharing[0].listen)
        for sharing in sharing_listeners(config.feeds)
    ]
    taken: dict[tuple[str, int], Place] = {}
    for place, text in wanted:
        try:
            address = listen_address(text)
        except ValueError as error:
            yield Finding(place, str(error), 'such as "127.0.0.1:2575"')
            continue
        others = [other for other in taken if other[1] == address[1] != 0 and _overlap(other[0], address[0])]
        if others:
            yield Finding(place, f"{text} is taken by {_dotted(taken[others[0]])} already")
        taken[address] = place


def _overlap(one: str, other: str) -> bool:
    return one == other or bool({one, other} & {"0.0.0.0", "::"})  # noqa: S104 - recognized, not bound


_TREATING = ("ROL", "PV1-7", "PV1-8", "PV1-9", "PV1-17")
_OF_LISTENER = tuple(
    field.name
    for field in msgspec.structs.fields(FeedSettings)
    if field.name not in ("name", "facility", "profile", "shadow")
)


def _check_shared_listeners(config: Config) -> Iterator[Finding]:
    """Feeds on one listener are told apart by their senders, and the listener can have but one set of limits."""
    for sharing in sharing_listeners(config.feeds):
        for position, feed in enumerate(sharing):
            index = config.feeds.index(feed)
            for other in sharing[:position]:
                names = f"the feeds {other.name!r} and {feed.name!r} share {feed.listen}"
                for key in _OF_LISTENER:
                    if getattr(feed, key) != getattr(other, key):
                        text = f"{names} and differ in {key}"
                        yield Finding(("feeds", index, key), text, "one listener has one set of limits")
                mine, theirs = _match_of(config, feed), _match_of(config, other)
                if mine.certificates != theirs.certificates:
                    text = f"{names} and are for different client certificates"
                    yield Finding(("profiles", feed.profile, "match"), text, "they are asked for before anybody speaks")
                if (mine.msh3, mine.msh4) == (theirs.msh3, theirs.msh4):
                    text = f"{names} and match the same senders"
                    hint = "give their profiles match = {msh3 = ..., msh4 = ...}"
                    yield Finding(("feeds", index, "listen"), text, hint)


def _match_of(config: Config, feed: FeedSettings) -> SenderMatch:
    profile = config.profiles.get(feed.profile)
    return profile.match if profile else SenderMatch()


def _check_names(config: Config) -> Iterator[Finding]:
    names: list[tuple[str, str, Sequence[str]]] = [
        ("feeds", "name", [feed.name for feed in config.feeds]),
        ("facilities", "id", [facility.id for facility in config.facilities]),
        ("identifier_domains", "name", [domain.name for domain in config.identifier_domains]),
    ]
    for table, key, values in names:
        for index, value in enumerate(values):
            if not value.strip():
                yield Finding((table, index, key), f"{table}[{index}].{key} is empty")
            if value in values[:index]:
                yield Finding((table, index, key), f"{table}[{index}].{key}: {value!r} is there twice")
    owners: dict[str, str] = {}
    for index, domain in enumerate(config.identifier_domains):
        for name in {domain.name, *domain.aliases}:
            if owners.setdefault(name, domain.name) != domain.name:
                text = f"the identifier domains {owners[name]!r} and {domain.name!r} both go by {name!r}"
                yield Finding(("identifier_domains", index), text)


def _check_feeds(config: Config) -> Iterator[Finding]:
    facilities = [str(facility.id) for facility in config.facilities]
    for index, feed in enumerate(config.feeds):
        place: Place = ("feeds", index)
        if feed.facility not in facilities:
            text = f"feed {feed.name!r} names the facility {feed.facility!r}, which no [[facilities]] has as id"
            yield Finding((*place, "facility"), text, _meant(feed.facility, facilities))
        if feed.profile and feed.profile not in config.profiles:
            text = f"feed {feed.name!r} names the profile {feed.profile!r}, and there is no [profiles.{feed.profile}]"
            yield Finding((*place, "profile"), text, _meant(feed.profile, list(config.profiles)))
        yield from _check_protocol(feed, place)
        yield from _check_admission(config, feed, place)
        if feed.directory is not None and feed.directory in [other.directory for other in config.feeds[:index]]:
            yield Finding((*place, "directory"), f"{feed.directory} is watched by another feed already")


def _check_protocol(feed: FeedSettings, place: Place) -> Iterator[Finding]:
    if feed.protocol == "mllp" and not feed.listen:
        yield Finding(place, f"the MLLP feed {feed.name!r} has no listen address", 'listen = "127.0.0.1:2575"')
    if feed.protocol == "fhir" and feed.listen:
        text = f"the FHIR feed {feed.name!r} has a listen address of its own"
        yield Finding((*place, "listen"), text, "FHIR is taken in at http.listen")
    yield from _check_directory(feed, place)
    if feed.protocol == "fhir" and feed.tls is not None:
        text = f"the FHIR feed {feed.name!r} has TLS settings of its own"
        yield Finding((*place, "tls"), text, "TLS of the FHIR listener is http.tls")
    if feed.tls is not None and feed.name == "http":
        text = "a feed with TLS is named 'http', as the FHIR listener is in the metrics of TLS"
        yield Finding((*place, "name"), text, "give it another name")
    yield from _check_tls((*place, "tls"), feed.tls)
    if feed.source is not None:
        if feed.protocol != "fhir":
            yield Finding((*place, "source"), f"the feed {feed.name!r} has a FHIR server and is no FHIR feed")
        yield from _check_url((*place, "source", "base_url"), feed.source.base_url)
        yield from _check_secret((*place, "source", "token"), feed.source.token)


def _check_tls(place: Place, tls: TlsSettings | None) -> Iterator[Finding]:
    if tls is not None:
        yield from _check_file((*place, "certfile"), tls.certfile)
        yield from _check_file((*place, "keyfile"), tls.keyfile)
        yield from _check_file((*place, "client_ca"), tls.client_ca)


def _check_admission(config: Config, feed: FeedSettings, place: Place) -> Iterator[Finding]:
    yield from _check_networks((*place, "allowed_networks"), feed.allowed_networks)
    profile = config.profiles.get(feed.profile)
    for pin in profile.match.certificates if profile is not None else ():
        if _FINGERPRINT.fullmatch(pin):
            text = f"profile {feed.profile!r}: a certificate's name looks like its fingerprint"
            yield Finding(("profiles", feed.profile, "match", "certificates"), text, f'"sha256:{pin[:8]}..."')
    if profile is not None and profile.match.certificates and (feed.tls is None or feed.tls.client_ca is None):
        text = f"profile {feed.profile!r} is for certain client certificates, and feed {feed.name!r} demands none"
        yield Finding(("profiles", feed.profile, "match", "certificates"), text, f"feeds[{place[1]}].tls.client_ca")


def _check_networks(place: Place, networks: Sequence[str]) -> Iterator[Finding]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield Finding(place, f"{_dotted(place)}: {error}", 'such as "10.20.0.0/16"')


def _check_directory(feed: FeedSettings, place: Place) -> Iterator[Finding]:
    if feed.protocol == "files":
        if feed.directory is None:
            yield Finding(place, f"the file feed {feed.name!r} has no directory", 'directory = "inbox"')
        if feed.listen:
            yield Finding((*place, "listen"), f"the file feed {feed.name!r} has a listen address")
    elif feed.directory is not None:
        text = f"the feed {feed.name!r} has a directory and its protocol is {feed.protocol}"
        yield Finding((*place, "directory"), text, 'protocol = "files"')


def _check_unread(config: Config) -> Iterator[Finding]:
    """Keys of a profile that only FHIR feeds use, and that mean nothing there: they would be ignored in silence."""
    readers: dict[str, set[str]] = {}
    for feed in config.feeds:
        readers.setdefault(feed.profile, set()).add(feed.protocol)
    for name, profile in config.profiles.items():
        for key in HL7V2_ONLY if readers.get(name) == {"fhir"} else ():
            if getattr(profile, key) != getattr(SourceProfile(), key):
                text = f"profile {name!r} is of FHIR feeds, and {key} says how HL7 v2 is read"
                yield Finding(("profiles", name, key), text, "leave it out")


def _check_profiles(config: Config) -> Iterator[Finding]:
    yield from _check_unread(config)
    zones = zoneinfo.available_timezones()
    for name, profile in config.profiles.items():
        place: Place = ("profiles", name)
        if profile.time_zone not in zones:
            text = f"profile {name!r}: there is no time zone {profile.time_zone!r}"
            yield Finding((*place, "time_zone"), text, _meant(profile.time_zone, sorted(zones)))
        if profile.visit_key not in VISIT_KEYS:
            text = f"profile {name!r}: visit_key is {profile.visit_key!r}, which names no visit"
            yield Finding((*place, "visit_key"), text, _meant(profile.visit_key, VISIT_KEYS))
        yield from _check_reading(profile, place)
        if profile.ack_policy not in ("accept_and_quarantine", "strict"):
            text = f"profile {name!r}: ack_policy is {profile.ack_policy!r}"
            yield Finding((*place, "ack_policy"), text, "accept_and_quarantine or strict")
        if profile.unsupported_types not in ("reject", "ignore"):
            text = f"profile {name!r}: unsupported_types is {profile.unsupported_types!r}"
            yield Finding((*place, "unsupported_types"), text, "reject or ignore")
        for key in ("late_after_h", "holdback_s", "stale_open_days"):
            if getattr(profile, key) < 0:
                yield Finding((*place, key), f"profile {name!r}: {key} is negative")


def _check_reading(profile: SourceProfile, place: Place) -> Iterator[Finding]:
    """Keys that say how messages are read."""
    where = f"profile {place[1]!r}"
    for trigger in profile.enabled_events:
        if not re.fullmatch(r"[A-Z]\d\d", trigger):
            yield Finding((*place, "enabled_events"), f"{where}: {trigger!r} is no trigger event", "such as A01")
    try:
        naive = bool(profile.go_live_at) and datetime.fromisoformat(profile.go_live_at).tzinfo is None
    except ValueError:
        naive = True
    if naive:
        text = f"{where}: go_live_at is {profile.go_live_at!r}, which is no time with an offset"
        yield Finding((*place, "go_live_at"), text, 'such as "2026-03-01T00:00:00-05:00"')
    for key, known in (("treating_order", _TREATING), ("snapshot_segments", SNAPSHOT_SEGMENTS)):
        for name in getattr(profile, key):
            if name not in known:
                yield Finding((*place, key), f"{where}: {key} names {name!r}", _meant(name, known))
    if profile.null_policy not in ("delete", "ignore"):
        yield Finding((*place, "null_policy"), f"{where}: null_policy is {profile.null_policy!r}", "delete or ignore")
    if profile.account_is_visit and profile.visit_key not in ("PV1-19", "PID-18"):
        text = f"{where}: account_is_visit contradicts visit_key = {profile.visit_key!r}"
        yield Finding((*place, "account_is_visit"), text, "name the visit by one field")
    for text, number in profile.destination_aliases.items():
        if not (valid_npi(number) or re.fullmatch(r"\d\d[0-9A-Z]\d{3}", number)):
            found = f"{where}: the destination {text!r} is {number!r}, neither an NPI (check digit) nor a CCN"
            yield Finding((*place, "destination_aliases", text), found, "ten digits, or six characters")
    yield from _check_z_paths(profile, place)


def _check_z_paths(profile: SourceProfile, place: Place) -> Iterator[Finding]:
    """Which field of a Z segment stands in for which standard one."""
    for standard, own in profile.z_paths.items():
        named = re.fullmatch(r"(PID|PD1|PV1|PV2)-[1-9]\d{0,2}", standard, re.ASCII)
        if not (named and re.fullmatch(r"Z[A-Z0-9]{2}-[1-9]\d{0,2}", own, re.ASCII)):
            found = f"profile {place[1]!r}: z_paths reads {standard!r} from {own!r}"
            yield Finding((*place, "z_paths", standard), found, 'such as "PV1-36" = "ZPV-2"')


def _check_event_log(config: Config) -> Iterator[Finding]:
    place: Place = ("event_log", "kafka")
    kafka = config.event_log.kafka
    if config.event_log.kind != "kafka":
        return
    if not kafka.bootstrap_servers.strip():
        yield Finding((*place, "bootstrap_servers"), "event_log.kafka.bootstrap_servers is empty")
    if kafka.min_insync > kafka.replication_factor:
        text = (
            f"min_insync is {kafka.min_insync} and replication_factor {kafka.replication_factor}: no write could pass"
        )
        yield Finding((*place, "min_insync"), text, "3 copies and 2 in sync are usual")
    if kafka.security_protocol.startswith("SASL") and not (kafka.sasl_username and kafka.sasl_password):
        text = f"security_protocol is {kafka.security_protocol} without sasl_username and sasl_password"
        yield Finding((*place, "security_protocol"), text)
    if not kafka.security_protocol.startswith("SASL") and (kafka.sasl_username or kafka.sasl_password):
        text = f"sasl_username or sasl_password is set and security_protocol is {kafka.security_protocol}"
        yield Finding((*place, "security_protocol"), text, "SASL_SSL")
    yield from _check_secret((*place, "sasl_password"), kafka.sasl_password)
    for key in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        name: str = getattr(kafka, key)
        yield from _check_file((*place, key), Path(name) if name else None)
        if name and "SSL" not in kafka.security_protocol.removeprefix("SASL_"):
            text = f"{key} is set and security_protocol is {kafka.security_protocol}"
            yield Finding((*place, "security_protocol"), text, "SSL or SASL_SSL")


def _check_keys(config: Config) -> Iterator[Finding]:
    """Keys outlive a machine: they are generated only where the data never leave this one."""
    for key in ("patient_hash", "audit_signing"):
        reference: str = getattr(config.keys, key)
        if not reference and not config.is_embedded:
            cause = ("postgres", "dsn") if config.postgres.dsn else ("event_log", "kind")
            text = f"keys.{key} is not set; it is generated on the embedded default only"
            yield Finding(cause, text, f'[keys] {key} = "file:..." or "env:..."')
        if reference and not reference.startswith(("file:", "env:")):
            yield Finding(("keys", key), f"keys.{key} holds the key itself", 'name it: "file:PATH" or "env:NAME"')
        yield from _check_secret(("keys", key), reference)


def _check_delivery(config: Config) -> Iterator[Finding]:
    delivery = config.delivery
    if delivery.backoff.first_s > delivery.backoff.max_s:
        text = f"backoff.first_s is {delivery.backoff.first_s:g} and backoff.max_s {delivery.backoff.max_s:g}"
        yield Finding(("delivery", "backoff"), text)
    yield from _check_networks(("delivery", "allowed_networks"), delivery.allowed_networks)


def _dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _meant(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, 1, 0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known and len(known) <= 12 else ""
