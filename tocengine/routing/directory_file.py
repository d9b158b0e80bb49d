"""Owns `directory.yaml`, version 1: from text to facilities, practitioners and panels, every error with its line."""

import base64
import binascii
import ipaddress
import re
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from tocengine.model.directory import (
    Alias,
    ChannelKind,
    Endpoint,
    Level,
    PanelMember,
    Recipient,
    RecipientKind,
    Subscription,
    opt_out_of,
)
from tocengine.model.encounter import TransitionKind
from tocengine.model.identity import valid_npi
from tocengine.model.ids import EndpointId, RecipientId
from tocengine.routing.directory import normalized_alias
from tocengine.routing.policy import OUTWARD_KINDS
from tocengine.routing.yaml_reader import Item, read_yaml, suggestion

VERSION = "1"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_CCN = re.compile(r"[0-9A-Z]{2}[0-9A-Z][0-9]{3}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_EVENTS = tuple(sorted(kind.value for kind in OUTWARD_KINDS))
_COMMON = ("id", "name", "npi", "endpoints", "subscription")
_FACILITY = (*_COMMON, "type", "ccn", "aliases")
_ENDPOINT = ("id", "channel", "url", "secret", "headers", "accepts_cancel", "timeout_s")
_OPT_OUT = ("domain", "value", "from", "to", "facility", "practitioner")
_MEMBER = ("domain", "value", "from", "to", "family", "given", "birth_date", "sex")


class Panel(msgspec.Struct, frozen=True):
    """The patients of one recipient, as the file lists them."""

    recipient_id: RecipientId
    members: tuple[PanelMember, ...]
    line: int


class DirectoryFile(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file, checked."""

    path: Path
    recipients: tuple[Recipient, ...]
    panels: tuple[Panel, ...]
    opt_outs: bool = False  # it lists them: then those in force and not listed are missing
    warnings: tuple[str, ...] = ()


def load_directory_file(path: Path, domains: dict[str, str] | None = None) -> DirectoryFile:
    """Reads and checks `path`. `domains` names the identifier domains by every alias they have; a panel may use any.

    Raises ConfigurationError with file, line, what was found and what was probably meant, for all problems at once.
    """
    root = read_yaml(path)
    reader = _Reader(path, domains)
    file = reader.read(root)
    root.problems.raise_if_any()
    return file


def recipient_id(kind: RecipientKind, own_id: str) -> RecipientId:
    """``facility:sunnyside``."""
    return RecipientId(f"{kind.value}:{own_id}")


class _Reader:
    def __init__(self, path: Path, domains: dict[str, str] | None) -> None:
        self.path, self.domains = path, domains
        self.ids: dict[str, int] = {}
        self.endpoint_ids: dict[str, int] = {}
        self.personal_npis: dict[str, int] = {}
        self.spellings: dict[tuple[str | None, str], list[str]] = {}

    def read(self, root: Item) -> DirectoryFile:
        fields = root.fields("the file", ("version", "facilities", "practitioners", "panels", "opt_outs"), ("version",))
        if "version" in fields and fields["version"].text("version") != VERSION:
            fields["version"].problem("this program reads version 1 of the format")
        recipients: list[Recipient] = []
        for kind, key in ((RecipientKind.FACILITY, "facilities"), (RecipientKind.PRACTITIONER, "practitioners")):
            if key in fields:
                recipients += [self._recipient(item, kind) for item in fields[key].items(key)]
        panels = self._panels(fields["panels"]) if "panels" in fields else ()
        panels += self._opt_outs(fields["opt_outs"]) if "opt_outs" in fields else ()
        warnings = tuple(
            f'"{spelling}" names {" and ".join(ids)}: a discharge to it is sent to neither'
            for (_, spelling), ids in self.spellings.items()
            if len(ids) > 1
        )
        return DirectoryFile(
            path=self.path,
            recipients=tuple(recipients),
            panels=panels,
            opt_outs="opt_outs" in fields,
            warnings=warnings,
        )

    # --- facilities and practitioners

    def _recipient(self, item: Item, kind: RecipientKind) -> Recipient:
        what = f"a {kind.value}"
        known = _FACILITY if kind is RecipientKind.FACILITY else _COMMON
        fields = item.fields(what, known, ("id", "name"))
        own_id = self._own_id(fields, what)
        identity = recipient_id(kind, own_id)
        if own_id:
            self._once(self.ids, identity, fields["id"], f"{what} with the id")
        npi = fields["npi"].text("npi") if "npi" in fields else None
        if npi is not None and not valid_npi(npi):
            fields["npi"].problem(f'"{npi}" is no NPI', "ten digits, the last one a check digit")
        elif npi and kind is RecipientKind.PRACTITIONER:
            self._once(self.personal_npis, npi, fields["npi"], "a practitioner with the NPI")
        ccn = fields["ccn"].text("ccn").upper() if "ccn" in fields else None
        if ccn is not None and not _CCN.fullmatch(ccn):
            fields["ccn"].problem(f'"{ccn}" is no CCN', "six characters: state, type of facility, number")
        endpoints = fields["endpoints"].items("endpoints") if "endpoints" in fields else ()
        return Recipient(
            recipient_id=identity,
            kind=kind,
            name=fields["name"].text("name") if "name" in fields else "",
            type=fields["type"].text("type").upper() if "type" in fields else "",
            npi=npi,
            ccn=ccn,
            aliases=self._aliases(fields["aliases"], own_id) if "aliases" in fields else (),
            endpoints=tuple(self._endpoint(endpoint) for endpoint in endpoints),
            subscription=(self._subscription(fields["subscription"]) if "subscription" in fields else Subscription()),
        )

    def _own_id(self, fields: dict[str, Item], what: str) -> str:
        if "id" not in fields:
            return ""
        own_id = fields["id"].text("id")
        if own_id and not _ID.fullmatch(own_id):
            fields["id"].problem(f'"{own_id}" cannot be the id of {what}', "lower case letters, digits, . _ -")
        return own_id

    def _once(self, seen: dict[str, int], value: str, item: Item, what: str) -> None:
        if value in seen:
            item.problem(f'{what} "{value}" is already in line {seen[value]}')
        seen.setdefault(value, item.line)

    def _aliases(self, item: Item, own_id: str) -> tuple[Alias, ...]:
        aliases: dict[Alias, None] = {}
        for element in item.items("aliases"):
            if element.is_text:
                alias = Alias(element.text("an alias"))
            else:
                fields = element.fields("an alias", ("feed", "value"), ("feed", "value"))
                if len(fields) < 2:
                    continue
                alias = Alias(fields["value"].text("value"), fields["feed"].text("feed"))
            spelling = normalized_alias(alias.value)
            if not spelling:
                element.problem("an alias needs a letter or a digit")
                continue
            owners = self.spellings.setdefault((alias.feed, spelling), [])
            if own_id not in owners:
                owners.append(own_id)
            aliases[alias] = None
        return tuple(aliases)

    def _subscription(self, item: Item) -> Subscription:
        fields = item.fields("a subscription", ("events", "level", "digest"))
        if "digest" in fields:
            fields["digest"].problem("digests are not supported yet", "leave it out: every notice is immediate")
        events: dict[TransitionKind, None] = {}
        for element in fields["events"].items("events") if "events" in fields else ():
            name = element.text("an event")
            if name in _EVENTS:
                events[TransitionKind(name)] = None
            elif name:
                element.problem(
                    f'nobody is told of "{name}"', suggestion(name, _EVENTS) or f"known: {', '.join(_EVENTS)}"
                )
        level = _choice(fields["level"], Level, "level") if "level" in fields else Level.STANDARD
        return Subscription(events=tuple(events), level=Level(level or Level.STANDARD))

    # --- endpoints

    def _endpoint(self, item: Item) -> Endpoint:
        fields = item.fields("an endpoint", _ENDPOINT, ("id", "channel", "url"))
        own_id = self._own_id(fields, "an endpoint")
        if own_id:
            self._once(self.endpoint_ids, own_id, fields["id"], "an endpoint with the id")
        channel = _choice(fields["channel"], ChannelKind, "channel") if "channel" in fields else ""
        secrets = self._secrets(fields["secret"]) if "secret" in fields else ()
        if channel == ChannelKind.WEBHOOK and not secrets:
            item.problem("a webhook needs a secret", "its receiver verifies the signature with it")
        return Endpoint(
            id=EndpointId(own_id),
            channel=ChannelKind(channel or ChannelKind.WEBHOOK),
            url=_url(fields["url"]) if "url" in fields else "",
            secrets=secrets,
            headers=_headers(fields["headers"]) if "headers" in fields else {},
            accepts_cancel=_flag(fields["accepts_cancel"]) if "accepts_cancel" in fields else False,
            timeout_s=_seconds(fields["timeout_s"]) if "timeout_s" in fields else 30.0,
        )

    def _secrets(self, item: Item) -> tuple[str, ...]:
        elements = [item] if item.is_text else list(item.items("secret"))
        secrets = []
        for element in elements:
            value = element.text("a secret")
            if value.startswith("file:"):  # relative to this file, whoever reads it later and from where
                value = "file:" + str((self.path.parent / value[5:]).resolve())
            if not (_REFERENCE.fullmatch(value) or _is_secret(value)):
                element.problem("a secret is env:NAME, file:PATH, or whsec_ and 24 to 64 bytes in base64")
            secrets.append(value)
        return tuple(secrets)

    # --- panels

    def _panels(self, item: Item) -> tuple[Panel, ...]:
        panels, owners = [], dict[str, int]()
        for element in item.items("panels"):
            fields = element.fields("a panel", ("facility", "practitioner", "members"), ("members",))
            owner = next((kind for kind in RecipientKind if kind.value in fields), None)
            if owner is None or len(fields.keys() & {"facility", "practitioner"}) != 1:
                element.problem('a panel names either its "facility" or its "practitioner"')
                continue
            identity = recipient_id(owner, fields[owner.value].text(owner.value))
            if identity in owners:
                element.problem(f"the panel of {identity} is already in line {owners[identity]}")
            owners.setdefault(identity, element.line)
            lines: dict[tuple[str, str], int] = {}
            members = [
                self._member(member, identity, lines)
                for member in (fields["members"].items("members") if "members" in fields else ())
            ]
            panels.append(Panel(identity, tuple(members), element.line))
        return tuple(panels)

    def _opt_outs(self, item: Item) -> tuple[Panel, ...]:
        """By whom they shut out: one recipient, or everybody."""
        found: dict[RecipientId, tuple[list[PanelMember], dict[tuple[str, str], int], int]] = {}
        for element in item.items("opt_outs"):
            fields = element.fields("an opt-out", _OPT_OUT, ("domain", "value"))
            named = [kind for kind in RecipientKind if kind.value in fields]
            if len(named) > 1:
                element.problem('an opt-out names a "facility", a "practitioner", or neither: then nobody is told')
                continue
            refused = recipient_id(named[0], fields.pop(named[0].value).text(named[0].value)) if named else ""
            members, lines, _ = found.setdefault(opt_out_of(refused), ([], {}, element.line))
            members.append(self._person(element, fields, opt_out_of(refused), lines))
        return tuple(Panel(owner, tuple(members), line) for owner, (members, _, line) in found.items())

    def _member(self, item: Item, owner: RecipientId, lines: dict[tuple[str, str], int]) -> PanelMember:
        return self._person(item, item.fields("a member", _MEMBER, ("domain", "value")), owner, lines)

    def _person(
        self, item: Item, fields: dict[str, Item], owner: RecipientId, lines: dict[tuple[str, str], int]
    ) -> PanelMember:
        said = {name: field.text(name) for name, field in fields.items()}
        domain, value = self.domain(said.get("domain", "")), said.get("value", "")
        if domain is None:
            fields["domain"].problem(
                f'there is no identifier domain "{said["domain"]}"',
                suggestion(said["domain"], self.domains or ()) or "see [[identifier_domains]]",
            )
        if (domain or "", value) in lines:
            item.problem(f"this member is already in line {lines[domain or '', value]}")
        lines.setdefault((domain or "", value), item.line)
        starts = _date(fields["from"]) if "from" in fields else None
        ends = _date(fields["to"]) if "to" in fields else None
        if starts and ends and ends < starts:
            fields["to"].problem("a membership cannot end before it starts")
        return PanelMember(
            recipient_id=owner,
            domain=domain or "",
            value=value,
            starts=starts,
            ends=ends,
            family=said.get("family", ""),
            given=said.get("given", ""),
            birth_date=said.get("birth_date", ""),
            sex=said.get("sex", ""),
        )

    def domain(self, name: str) -> str | None:
        """The configured name of an identifier domain; any name passes where none are configured."""
        return name if not self.domains or not name else self.domains.get(name)


def _choice(item: Item, kind: type[Level] | type[ChannelKind], what: str) -> str:
    value, known = item.text(what), [member.value for member in kind]
    if value in known:
        return value
    if value:
        item.problem(f'"{value}" is no {what}', suggestion(value, known) or f"known: {', '.join(known)}")
    return ""


def _url(item: Item) -> str:
    value = item.text("url")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        item.problem("this is no URL")
        return value
    if parts.scheme not in ("https", "http") or not host:
        item.problem("an endpoint's url starts with https:// and a host")
    elif parts.username or parts.password:
        item.problem("an endpoint's url carries no user or password", 'use "headers" with env: or file:')
    elif parts.scheme == "http" and not _stays_inside(host):
        item.problem("patient data leaves the network over https:// only")
    return value


def _stays_inside(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".localhost"))
    return address.is_loopback or address.is_private


def _headers(item: Item) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in item.fields("headers", item.keys()).items():
        if not _HEADER.fullmatch(name):
            value.problem("this is no name of an HTTP header")
        headers[name] = value.text(name)
    return headers


def _flag(item: Item) -> bool:
    value = item.text("accepts_cancel").lower()
    if value not in ("true", "false"):
        item.problem("this is either true or false")
    return value == "true"


def _seconds(item: Item) -> float:
    try:
        value = float(item.text("timeout_s"))
    except ValueError:
        value = 0.0
    if not 1 <= value <= 120:
        item.problem("timeout_s is 1 to 120 seconds")
        return 30.0
    return value


def _date(item: Item) -> date | None:
    value = item.text("a date")
    try:
        return date.fromisoformat(value)
    except ValueError:
        item.problem(f'"{value}" is no date', "YYYY-MM-DD")
        return None


def _is_secret(value: str) -> bool:
    if not value.startswith("whsec_"):
        return False
    try:
        return 24 <= len(base64.b64decode(value[6:], validate=True)) <= 64
    except binascii.Error:
        return False
