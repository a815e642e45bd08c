"""Pretrained backbones; the only door to timm."""

import importlib

from autometa.backbones.environment import check_environment
from autometa.core.deferred_compiler import deferred_compiler

with deferred_compiler():
    check_environment()  # before timm, whose import would fail without saying why
    importlib.import_module("timm")

from autometa.backbones.batches import batch_size, fill_batch
from autometa.backbones.build import Backbone, build_backbone
from autometa.backbones.catalogue import CATALOGUE, PRESETS, BackboneSpec, expand_presets, find_spec
from autometa.backbones.costs import kind_of, peak_bytes, predict_bytes, work_of
from autometa.backbones.engines import EAGER
from autometa.backbones.network import Preprocessing, copy_sharing_tensors
from autometa.backbones.split import Normalise, list_stages, split
from autometa.backbones.view import LAST, LAYERS, STAGES, TUNED, Source, View, network_label
from autometa.backbones.weights import installed_backbones

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
    "kind_of",
    "list_stages",
    "network_label",
    "peak_bytes",
    "predict_bytes",
    "split",
    "work_of",
]
