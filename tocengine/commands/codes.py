"""Owns the commands around codes of senders that no table knows: which, what they mean, and since when."""

from difflib import get_close_matches
from pathlib import Path

import typer

from tocengine.audit.postgres import PostgresAuditTrail
from tocengine.clock import utc_now
from tocengine.commands import output
from tocengine.commands.reprocessing import prepared, request, settled, show, watched
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run
from tocengine.config import Config
from tocengine.config_file import sources
from tocengine.local_codes.postgres import PostgresLocalCodes
from tocengine.local_codes.postgres import load as load_codes
from tocengine.model.audit import AuditAction, AuditRecord
from tocengine.model.codes import CodeKey, subject_of
from tocengine.model.ids import FeedName
from tocengine.model.work import WorkKind
from tocengine.normalize.codes import MAPPABLE, codes_for, meanings, nubc
from tocengine.ports import Transaction
from tocengine.reprocessing.postgres import Cause, Request, Result, Tally
from tocengine.reprocessing.replay import Stretch, replay, replay_waiting
from tocengine.reprocessing.workshop import Workshop
from tocengine.work_items.postgres import PostgresWorkItems

codes = typer.Typer(no_args_is_help=True, help="Codes of senders that no table knows.")
PROFILE_MAPS = {"class": "class_map", "patient_type": "patient_type_map", "disposition": "disposition_map"}


@codes.command("list")
def list_codes(
    unmapped: bool = typer.Option(False, "--unmapped", help="Only those that messages wait for."),
    feed: str = typer.Option("", help="Only of this feed."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Codes that are unknown or were mapped here, with how many messages had them and how many wait."""
    settings = load(config)

    async def read() -> list[dict[str, object]]:
        async with connected(settings) as pool, pool.acquire() as connection:
            found = await PostgresLocalCodes().listing(connection, feed or None, unmapped=unmapped)
        rows: list[dict[str, object]] = []
        for each in found:
            written = _in_profile(settings, (each.feed, each.table_name, each.code))
            rows.append(
                {
                    "feed": each.feed, "table": each.table_name, "code": each.code, "meaning": written or each.meaning,
                    "from": "profile" if written else "codes map" if each.meaning else None,
                    "messages": each.messages, "waiting": each.waiting,
                    "first_seen": each.first_seen, "last_seen": each.last_seen,
                }
            )  # fmt: skip
        return rows

    output.rows(run(read()), as_json=as_json, title="Codes", empty="Every code is known.")


@codes.command("history")
def history(
    feed: str = typer.Option("", help="Only of this feed."), config: Path = ConfigOption, as_json: bool = JsonOption
) -> None:
    """Every mapping that was made or taken back, by whom."""

    async def read() -> list[dict[str, object]]:
        async with connected(load(config)) as pool, pool.acquire() as connection:
            return await PostgresLocalCodes().history(connection, feed or None)

    output.rows(run(read()), as_json=as_json, title="History of codes", empty="No code was ever mapped.")


@codes.command("map")
def map_code(
    feed: str,
    table: str = typer.Argument(..., help=f"One of {', '.join(MAPPABLE)}."),
    code: str = typer.Argument(..., help="As `codes list` shows it, or as it was sent."),
    value: str = typer.Argument(..., help="What it means: a class, or a code the table has."),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Say what a code means. In force within 2 s; what waited for it is normalized again, and only news goes out."""
    settings = load(config)
    key, meaning = _checked(settings, feed, table, code, value)
    _report(run(_change(settings, key, meaning, quiet=as_json)), key, as_json)


@codes.command("unmap")
def unmap(
    feed: str,
    table: str,
    code: str,
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Take a mapping back. All that was read with it is normalized again without it, and only news goes out."""
    key = (feed, table, code.strip())
    _report(run(_change(load(config), key, None, quiet=as_json)), key, as_json)


def _report(done: tuple[Tally, Result] | None, key: CodeKey, as_json: bool) -> None:
    if done is None:
        output.stdout.print(f"{subject_of(key)}: nothing changes.", markup=False)
        raise typer.Exit(1)
    tally, result = done
    if as_json:
        output.document({"messages": tally, "result": result})
    else:
        show(tally, result)


async def _change(config: Config, key: CodeKey, meaning: str | None, *, quiet: bool) -> tuple[Tally, Result] | None:
    """None where the code means that already."""
    store, made = PostgresLocalCodes(), request(Cause.CODES)
    async with prepared(config) as shop:
        async with shop.pool.acquire() as connection, connection.transaction():
            since = await store.mapped_since(connection, key)
            if not await store.change(connection, key, meaning, made.by, made.at):
                return None
            await _on_record(connection, key, meaning, made)
        async with shop.pool.acquire() as connection:
            shop.normalizer.learn((await load_codes(connection))[1])
        with watched(since or made.at, made.at, quiet=quiet) as told:
            before = since is not None  # it meant something else: what was read with that is read again
            tally = await replay_waiting(
                shop.scanner, shop.reprocessor, key, made, shop.publisher.flow, told, settled=before
            )
            if since is not None:
                stretch = Stretch(since=since, until=utc_now(), feed=key[0])
                again = await replay(
                    shop.scanner, shop.reprocessor, stretch, made, shop.publisher.flow, told, shop.ignores
                )
                tally = _sum(tally, again)
        result = await settled(shop, made)
        await _close_work_item(shop, key, meaning, made)
        return tally, result


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(**{name: getattr(one, name) + getattr(other, name) for name in one.__struct_fields__})


async def _on_record(transaction: Transaction, key: CodeKey, meaning: str | None, made: Request) -> None:
    detail: dict[str, object] = {"feed": key[0], "table": key[1], "meaning": meaning or ""}
    record = AuditRecord(action=AuditAction.CODE_MAPPED, at=made.at, actor=made.by, detail=detail)
    await PostgresAuditTrail().record(transaction, [record])


async def _close_work_item(shop: Workshop, key: CodeKey, meaning: str | None, made: Request) -> None:
    """A person did what the item asked for; what still waits, waits for nothing of theirs."""
    if meaning is not None:
        async with shop.pool.acquire() as connection, connection.transaction():
            await PostgresWorkItems().close_subjects(
                connection, WorkKind.CODE_UNMAPPED, [subject_of(key)], made.by, f"mapped to {meaning}", utc_now()
            )


def _checked(config: Config, feed: str, table: str, code: str, value: str) -> tuple[CodeKey, str]:
    """The key and the meaning as they are stored. Exit status 2 for what makes no sense."""
    feeds = [str(each.name) for each in config.feeds]
    for word, known, what in ((feed, feeds, "feed"), (table, list(MAPPABLE), "table")):
        if word not in known:
            output.fail(f"no {what} {word!r}{_meant(word, known)}", 2)
    known = list(meanings(table))
    meaning = nubc(value) or value if table == "disposition" else value
    meaning = next((each for each in known if each.casefold() == meaning.strip().casefold()), meaning)
    if meaning not in known:
        output.fail(f"{table} has no {value!r}{_meant(value, known)}", 2)
    key = (feed, table, code.strip())
    if not key[2] or key[2] == "?":
        output.fail("the code is empty, or stands for text of many kinds: name it as it was sent", 2)
    if _in_profile(config, key):
        profile = next(each.profile for each in config.feeds if each.name == feed)
        output.fail(f"the profile {profile!r} maps {key[2]!r} already, and what is written there counts", 2)
    if _in_tables(config, key):
        output.fail(f"{table} knows {key[2]!r} already; a profile alone can give it another meaning", 2)
    return key, meaning


def _in_profile(config: Config, key: CodeKey) -> str:
    """What the feed's profile says a code means; "" where it says nothing."""
    feed, table, code = key
    source = sources(config).get(FeedName(feed))
    name = PROFILE_MAPS.get(table)
    return str(getattr(source.profile, name).get(code, "")) if source is not None and name else ""


def _in_tables(config: Config, key: CodeKey) -> bool:
    """Whether the engine's own tables know the code."""
    feed, table, code = key
    source = sources(config)[FeedName(feed)]
    if table == "disposition":
        return source.profile.nubc_dispositions and nubc(code) in codes_for(source).dispositions
    return table != "patient_type" and (
        code in codes_for(source).classes if table == "class" else code in meanings(table)
    )


def _meant(word: str, known: list[str]) -> str:
    close = get_close_matches(word.casefold(), [each.casefold() for each in known], 1, 0.5)
    if close:
        return f" (did you mean {next(each for each in known if each.casefold() == close[0])!r}?)"
    return f" (known: {', '.join(known[:40])})"
