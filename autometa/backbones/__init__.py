"""Pretrained backbones; the only door to timm."""

from autometa.backbones.environment import check_environment

check_environment()  # before timm, whose import would fail without saying why

from autometa.backbones.batches import batch_size, fill_batch, predict_bytes  # noqa: E402
from autometa.backbones.build import Backbone, build_backbone  # noqa: E402
from autometa.backbones.catalogue import CATALOGUE, PRESETS, BackboneSpec, expand_presets, find_spec  # noqa: E402
from autometa.backbones.engines import EAGER  # noqa: E402
from autometa.backbones.network import Preprocessing, copy_sharing_tensors  # noqa: E402
from autometa.backbones.split import Normalise, list_stages, split  # noqa: E402
from autometa.backbones.view import LAST, LAYERS, STAGES, TUNED, Source, View, network_label  # noqa: E402
from autometa.backbones.weights import installed_backbones  # noqa: E402

__all__ = [
    "CATALOGUE",
    "EAGER",
    "LAST",
    "LAYERS",
    "PRESETS",
    "STAGES",
    "TUNED",
    "Backbone",
    "BackboneSpec",
    "Normalise",
    "Preprocessing",
    "Source",
    "View",
    "batch_size",
    "build_backbone",
    "copy_sharing_tensors",
    "expand_presets",
    "fill_batch",
    "find_spec",
    "installed_backbones",
    "list_stages",
    "network_label",
    "predict_bytes",
    "split",
]
