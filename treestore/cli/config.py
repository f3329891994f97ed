"""The verb that shows the settings."""

from __future__ import annotations

import os

import typer

from treestore.cli.options import Json, Store, store_url
from treestore.cli.output import say, write_json, write_table

app = typer.Typer(add_completion=False)


@app.callback()
def _settings() -> None:
    """The settings that apply."""


@app.command()
def show(context: typer.Context, store: Store = None, as_json: Json = False) -> None:
    """Show each setting and where its value comes from.

    Passwords are masked.
    """
    from treestore import config

    url = store_url(context, store)
    given = {} if url is None else {config.variable("url"): url}
    shown = config.show({**os.environ, **given})
    rows = [(entry.variable, entry.value, "--store" if entry.variable in given else entry.source) for entry in shown]
    if as_json:
        write_json([{"variable": variable, "value": value, "source": source} for variable, value, source in rows])
    else:
        write_table(("VARIABLE", "VALUE", "SOURCE"), rows)
    for entry in shown:
        if entry.source == "unknown variable":
            say(f"{entry.variable} is no setting of treestore; nothing reads it")
