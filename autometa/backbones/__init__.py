"""Pretrained backbones; the only door to timm."""

from autometa.environment import check_environment

check_environment()  # before timm, whose import would fail without saying why

from autometa.backbones.build import Backbone, View, build_backbone  # noqa: E402
from autometa.backbones.catalogue import (  # noqa: E402
    CATALOGUE,
    BackboneSpec,
    find_spec,
    installed_backbones,
)

__all__ = [
    "CATALOGUE",
    "Backbone",
    "BackboneSpec",
    "View",
    "build_backbone",
    "find_spec",
    "installed_backbones",
]
