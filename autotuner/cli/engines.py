"""``autotune engines``: which families of models can be tuned here, and which of them a model is for."""

from __future__ import annotations

from typing import Any

import click

from autotuner.cli.options import print_json, print_table, say


@click.command()
@click.option("--model", metavar="NAME", help="Say which engine takes this model, its size and its licence.")
@click.option("--revision", metavar="REVISION", help="Of a hub model.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def engines_command(model: str | None, revision: str | None, as_json: bool) -> None:
    """List the engines that are installed: families of models and how to run them.

    \b
    autotune engines
    autotune engines --model Datadog/Toto-Open-Base-1.0
    autotune engines --json
    """
    from autotuner.engines.registry import installed

    documents = [
        {
            "engine": each.name,
            "version": each.version,
            "from": each.source,
            "models": "" if each.engine is None else each.engine.models,
            "fault": each.fault,
        }
        for each in installed()
    ]
    about = None if model is None else _about(model, revision)
    if as_json:
        print_json({"engines": documents, "model": about})
        return
    if about is not None:
        parts = (about["about"], f"{about['weights_bytes'] / 2**20:,.1f} MB", about["licence"])
        say(f"{model} is run by {about['engine']}: {', '.join(part for part in parts if part)}")
        return
    from rich.text import Text

    from autotuner.report.tables import bare_table, plain

    table = bare_table("engine", "version", "from", "models")
    for each in documents:
        what = f"cannot be used: {each['fault']}" if each["fault"] else each["models"]
        row = (each["engine"], each["version"], each["from"], what)
        table.add_row(*(Text(plain(cell)) for cell in row), style="red" if each["fault"] else "")
    print_table(table)


def _about(model: str, revision: str | None) -> dict[str, Any]:
    from autotuner.engines.registry import engine_for

    engine = engine_for(model, revision)
    found = engine.identity(model, revision)
    return {
        "model": model,
        "engine": engine.name,
        "about": found.about,
        "licence": found.licence,
        "weights_bytes": found.weights_bytes,
        "shortest_context": found.patch_size,
        "digest": found.digest,
    }
