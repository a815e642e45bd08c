"""`autometa backbones`: the catalogue, and fetching weights. It is `python -m autometa.backbones`, and more."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from autometa.cli.options import (
    CONTEXT,
    examples,
    json_option,
    level,
    level_options,
    print_json,
    read_size,
)
from autometa.cli.program import FAILED, BadInput, Group
from autometa.core.progress import QUIET

if TYPE_CHECKING:
    from autometa.backbones import BackboneSpec


@click.group(
    cls=Group,
    context_settings=CONTEXT,
    invoke_without_command=True,
    epilog=examples(
        "autometa backbones",
        "autometa backbones list --json",
        "autometa backbones fetch --preset small --limit 1GB",
    ),
)
@click.pass_context
def backbones(context: click.Context) -> None:
    """List pretrained backbones, and fetch their weights.

    Without a command, the list is shown.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_backbones)


@backbones.command(
    "list",
    context_settings=CONTEXT,
    epilog=examples(
        "autometa backbones list", "autometa backbones list --json | jq 'map(select(.weights_here))'"
    ),
)
@json_option("a list with more about each backbone")
@click.pass_context
def list_backbones(context: click.Context, as_json: bool = False) -> None:
    """Show the catalogue, the cheapest first, and where the weights of each are."""
    from autometa.backbones import __main__ as program  # noqa: PLC0415 - imports torch

    if as_json:
        print_json(catalogue_record())
    else:
        context.invoke(program.list_backbones)


@backbones.command(
    "fetch",
    context_settings=CONTEXT,
    epilog=examples(
        "autometa backbones fetch convnext_tiny.in12k",
        "autometa backbones fetch --preset small --limit 1GB",
    ),
)
@click.argument("names", nargs=-1)
@click.option("--preset", metavar="tiny|small|base|large", help="All backbones of a preset.")
@click.option(
    "--limit",
    default="4GB",
    callback=read_size,
    metavar="SIZE",
    help="Bytes to fetch, at most. Default: 4GB.",
)
@level_options
@click.pass_context
def fetch(context: click.Context, names: tuple[str, ...], preset: str | None, limit: int) -> None:
    """Fetch the weights of NAMES, or of a preset, from the Hugging Face hub into its cache."""
    from autometa.backbones import PRESETS  # noqa: PLC0415 - imports torch
    from autometa.backbones.fetch import fetch_named  # noqa: PLC0415

    if preset and preset not in PRESETS:
        raise BadInput(f"--preset {preset}: no such preset; use one of {', '.join(PRESETS)}")
    wanted = [*names, *([preset] if preset else [])]
    if not wanted:
        raise BadInput("name backbones (see: autometa backbones list), or give --preset")
    shown = level() > QUIET

    def show(line: str) -> None:
        failed = line.startswith("failed")
        if failed or shown:
            click.echo(line, err=failed)

    context.exit(FAILED if fetch_named(wanted, show, limit) else 0)


@backbones.command(
    "verify",
    context_settings=CONTEXT,
    epilog=examples("autometa backbones verify", "autometa backbones verify --json"),
)
@json_option("what was found for each backbone")
@level_options
@click.pass_context
def verify(context: click.Context, as_json: bool) -> None:
    """Compare the weights that came with packages with the digests of what was published.

    Exit status: 0 without differences, 1 with one.
    """
    from autometa.backbones.verify import verify_packaged  # noqa: PLC0415 - imports torch

    found = list(verify_packaged())
    if as_json:
        print_json([{**asdict(each), "remedy": each.remedy} for each in found])
    else:
        for each in found:
            if each.state == "wrong" or level() > QUIET:
                click.echo(f"{each.text}; run: {each.remedy}" if each.remedy else each.text)
        if not found and level() > QUIET:
            click.echo("no package with weights is installed")
    context.exit(FAILED if any(each.state == "wrong" for each in found) else 0)


def catalogue_record() -> list[dict[str, object]]:
    """The catalogue for `--json`, the cheapest first."""
    from autometa.backbones import CATALOGUE, PRESETS  # noqa: PLC0415 - imports torch
    from autometa.backbones.__main__ import where  # noqa: PLC0415
    from autometa.backbones.catalogue import is_packaged  # noqa: PLC0415
    from autometa.backbones.local_weights import find_local_weights  # noqa: PLC0415

    def is_here(spec: BackboneSpec) -> bool:
        return is_packaged(spec) or (spec.depth is None and find_local_weights(spec) is not None)

    return [
        {
            "name": spec.name,
            "parameters": round(spec.parameters_m * 1e6),
            "multiply_adds": spec.mega_macs * 10**6,
            "px": spec.native_px,
            "patch_px": spec.patch_px,
            "licence": spec.licence,
            "by_default": spec.by_default,
            "pretraining": spec.pretraining,
            "presets": [preset for preset, names in PRESETS.items() if spec.name in names],
            "weights_here": is_here(spec),
            "weights": where(spec),
        }
        for spec in sorted(CATALOGUE.values(), key=lambda spec: spec.mega_macs)
    ]
