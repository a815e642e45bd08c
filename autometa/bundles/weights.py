"""Pretrained weights for a bundle, as safetensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from autometa.bundles.archive import Content
from autometa.bundles.errors import BundleError


def choose_backbones(names: Sequence[str]) -> tuple[str, ...]:
    """The named backbones, by default those whose weights came with a package. BundleError for one that a bundle
    cannot carry."""
    from autometa.backbones.catalogue import CATALOGUE, find_spec, is_packaged  # noqa: PLC0415 - slow

    if not names:
        return tuple(name for name, spec in CATALOGUE.items() if is_packaged(spec) and spec.depth is None)
    for name in names:
        if find_spec(name).depth is not None:
            raise BundleError(
                f"--backbones {name}: is part of a network, which a file cannot hold; leave it out"
            )
    return tuple(names)


def weights_contents(names: Sequence[str], scratch: Path) -> Iterator[tuple[str, Content]]:
    """`weights/NAME.safetensors` for each backbone, written in `scratch`. WeightsError where weights are unavailable,
    ConfigError for an unknown name."""
    from autometa.backbones.build import build_backbone  # noqa: PLC0415 - slow
    from autometa.core.files import write_tensors  # noqa: PLC0415 - slow

    for name in names:
        file = scratch / f"{name}.safetensors"
        write_tensors(file, build_backbone(name, "cpu").model.state_dict())
        yield f"weights/{file.name}", file
