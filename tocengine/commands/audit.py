"""Owns `tocengine audit`."""

from pathlib import Path

import typer

from tocengine.audit.checkpoints import PUBLIC_KEY_FILE, read_public_key
from tocengine.audit.verify import VerifyReport
from tocengine.audit.verify import verify as verify_chain
from tocengine.commands import output
from tocengine.commands.session import ConfigOption, JsonOption, connected, load, run
from tocengine.deployment import checkpoint_dir

audit = typer.Typer(no_args_is_help=True, help="The audit log.")


@audit.callback()
def subject() -> None:
    """The audit log: append-only, sealed in a hash chain, with signed checkpoints outside the database."""


@audit.command("verify")
def verify(
    public_key: Path | None = typer.Option(
        None, "--public-key", help="The key of the checkpoints, from where an attacker cannot replace it."
    ),
    config: Path = ConfigOption,
    as_json: bool = JsonOption,
) -> None:
    """Check the whole chain and every checkpoint; name the first bad row. Exit status 1 if there is one."""
    settings = load(config)
    folder = checkpoint_dir(settings)

    async def work() -> VerifyReport:
        key = read_public_key(public_key or folder / PUBLIC_KEY_FILE)
        async with connected(settings) as pool:
            return await verify_chain(pool, folder, key)

    report = run(work())
    if as_json:
        output.document({**{name: getattr(report, name) for name in report.__struct_fields__}, "intact": report.ok})
    else:
        output.stdout.print(
            f"{report.records} records in {report.blocks} blocks, {report.checkpoints} checkpoints, "
            f"{report.unsealed} not sealed yet: {'intact' if report.ok else 'NOT intact'}."
        )
        for finding in report.findings:
            output.stdout.print(f"{finding.tampering.value}: {finding.text}", style="red", markup=False)
    raise typer.Exit(0 if report.ok else 1)
