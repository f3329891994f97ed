"""The verbs on tables that the reasoning-service's code writes too: deriving what is ours, and how its versions stand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from treestore.cli.database import app as app
from treestore.cli.database import database_address, need_packages
from treestore.cli.options import Json, Store, refuse, store_url
from treestore.cli.output import counted, printable, progress_bar, write, write_fields, write_json, write_table

if TYPE_CHECKING:
    from treestore.backends.postgres.adopted import Done, Surveyed
    from treestore.backends.postgres.backend import PostgresBackend

OnlyPolicy = Annotated[str | None, typer.Option("--policy", metavar="ID", help="Only its versions.", show_default=False)]
Batch = Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Versions between two pauses.")]
Load = Annotated[int, typer.Option("--load", min=1, max=100, metavar="PERCENT", help="Share of the time to work in.")]


@app.command()
def derive(
    context: typer.Context,
    policy: OnlyPolicy = None,
    batch: Batch = 20,
    load: Load = 100,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Derive versions that others have written.

    Fills treestore's columns of versions that have none. Each version is a transaction of its own, so an interrupted run is
    gone on with by the next. Versions whose nodes form no tree are named and left as they are.
    """
    _derive(context, store, policy, lambda version: version.state == "underived", batch, load, as_json=as_json)


@app.command()
def repair(
    context: typer.Context,
    policy: OnlyPolicy = None,
    every: Annotated[bool, typer.Option("--all", help="Also versions that look as they should.")] = False,
    batch: Batch = 20,
    load: Load = 100,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Derive those too that others have changed.

    As derive, also of versions that others have changed since. What treestore kept of versions that others have deleted goes.
    """

    def wanted(version: Surveyed) -> bool:
        return version.state in ("underived", "stale") or (every and version.state != "deleted")

    _derive(context, store, policy, wanted, batch, load, repairing=True, again=every, as_json=as_json)


def _derive(
    context: typer.Context,
    store: str | None,
    policy: str | None,
    wanted: Callable[[Surveyed], bool],
    batch: int,
    load: int,
    *,
    repairing: bool = False,
    again: bool = False,
    as_json: bool,
) -> None:
    need_packages()
    from treestore.backends.postgres import adopted

    async def work(backend: PostgresBackend) -> list[Done]:
        versions = [version for version in await adopted.survey(backend, policy) if wanted(version)]
        done = []
        with progress_bar("deriving", sum(version.node_count for version in versions)) as bar:
            async for one in adopted.derive(backend, versions, batch=batch, load=load, again=again):
                done.append(one)
                bar.advance(one.version.node_count)
        if repairing:
            await adopted.clear_strays(backend)
        return done

    _report(_run(context, store, work), as_json=as_json)


def _report(done: Sequence[Done], *, as_json: bool) -> None:
    outcomes = Counter(one.outcome for one in done)
    broken = [one for one in done if one.outcome == "broken"]
    held = [one for one in done if one.outcome == "held"]
    if as_json:
        write_json(
            {
                "derived": outcomes["derived"],
                "broken": [_named(one.version, one.broken) for one in broken],
                "held": [_named(one.version, None) for one in held],
            }
        )
    else:
        nodes = sum(one.version.node_count for one in done if one.outcome == "derived")
        write(f"derived {counted(outcomes['derived'], 'versions')} with {counted(nodes, 'nodes')}\n")
        if broken:
            write(f"{counted(len(broken), 'versions')} left as a flat list, as the nodes form no tree:\n")
            write_table(("POLICY", "VERSION", "REASON"), [_cells(one.version, one.broken) for one in broken])
    if held:
        refuse(f"others held the rows of {counted(len(held), 'versions')}; run it again", status=1)


R = TypeVar("R")


def _run(context: typer.Context, store: str | None, work: Callable[[PostgresBackend], Awaitable[R]]) -> R:
    """What is done with the database that the options name, which must be a store."""
    from treestore.backends.postgres.backend import PostgresBackend
    from treestore.config import Settings

    database_address(context, store)
    settings = Settings.from_environment()

    async def opened() -> R:
        backend = await PostgresBackend.open(store_url(context, store) or settings.url, settings, create=False)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(opened())


@app.command()
def status(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Show how the versions stand.

    Derived: what treestore keeps of a version is that of its nodes. Stale: others have changed it since. Underived: only
    others have written it. Broken: its nodes form no tree. All but the first are read by deriving them in memory.
    """
    need_packages()
    from treestore.backends.postgres import adopted, ids

    async def work(backend: PostgresBackend) -> tuple[bool, list[Surveyed]]:
        return backend.shared, await adopted.survey(backend)

    shared, versions = _run(context, store, work)
    last, greatest = ids.ids_used(database_address(context, store))
    states = Counter[str](version.state for version in versions)
    broken = [version for version in versions if version.state == "broken"]
    if as_json:
        write_json(
            {
                "adopted": shared,
                "versions": {name: states[name] for name in _STATES},
                "broken": [_named(version, version.broken) for version in broken],
                "ids": {"last": last, "greatest": greatest},
            }
        )
        return
    write_fields(
        [
            ("adopted", "yes, others write the tables too" if shared else "no, the tables are treestore's alone"),
            *((name, str(states[name])) for name in _STATES),
            ("ids used", f"{last} of {greatest} ({last / greatest:.2%})"),
        ]
    )
    if broken:
        write_table(("POLICY", "VERSION", "REASON"), [_cells(version, version.broken) for version in broken])


_STATES = ("derived", "stale", "underived", "broken", "deleted")


def _named(version: Surveyed, reason: str | None) -> dict[str, Any]:
    named = {"policy_id": version.policy_id, "version_id": version.version_id}
    return named if reason is None else {**named, "reason": reason}


def _cells(version: Surveyed, reason: str | None) -> tuple[str, str, str]:
    return printable(version.policy_id), printable(version.version_id), printable(reason or "")
