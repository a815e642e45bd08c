"""Finding weights that are on this machine already, without any network call.

In this order: folders that the user names, the cache of the Hugging Face hub, the cache of PyTorch. They are read as
they are and never written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import timm
from huggingface_hub import try_to_load_from_cache

from autometa.backbones.catalogue import BackboneSpec

DIRECTORIES_VARIABLE = "AUTOMETA_WEIGHTS_DIR"
"""Folders with weights, separated like those of PATH."""
CACHES_VARIABLE = "AUTOMETA_CACHES"
"""`no`: the caches are not looked at."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in a repository of the hub, and in a folder that timm reads as `local-dir:`."""


def weights_directories(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders that the user names."""
    named = environment.get(DIRECTORIES_VARIABLE, "")
    return [_expand(part) for part in named.split(os.pathsep) if part]


def find_local_weights(spec: BackboneSpec, environment: Mapping[str, str] = os.environ) -> Path | None:
    """A file with the pretrained weights of a backbone; None where this machine has none."""
    return next((file for file in _candidates(spec, environment) if file.is_file()), None)


def _candidates(spec: BackboneSpec, environment: Mapping[str, str]) -> Iterator[Path]:
    for folder in weights_directories(environment):
        yield from (folder / f"{spec.name}{suffix}" for suffix in SUFFIXES)
        yield from (folder / spec.name / name for name in HUB_FILES)
    if environment.get(CACHES_VARIABLE) == "no":
        return
    hub_id, url_file = find_source(spec)
    if hub_id:
        cache = hub_cache(environment)
        for name in HUB_FILES:
            found = try_to_load_from_cache(hub_id, name, cache_dir=cache)
            if isinstance(found, str):
                yield Path(found)
    if url_file:
        yield torch_cache(environment) / url_file


def find_source(spec: BackboneSpec) -> tuple[str | None, str | None]:
    """The repository of the hub that has the weights of a backbone, and the name of the file where they are fetched
    by address; from the catalogue, else as timm knows them."""
    if spec.hub_id or spec.url_file:
        return spec.hub_id, spec.url_file
    try:
        config = timm.get_pretrained_cfg(spec.timm_name)
    except RuntimeError:  # of a name that timm does not know
        return None, None
    if config is None:
        return None, None
    url = config.url if isinstance(config.url, str) else ""
    return config.hf_hub_id, url.rsplit("/", 1)[-1] or None


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """The cache of the Hugging Face hub; the current user's where HOME is not set."""
    if named := environment.get("HF_HUB_CACHE"):
        return _expand(named)
    home = environment.get("HF_HOME") or _user_cache(environment) / "huggingface"
    return _expand(home) / "hub"


def torch_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of PyTorch's cache that has files of weights."""
    home = environment.get("TORCH_HOME") or _user_cache(environment) / "torch"
    return _expand(home) / "hub" / "checkpoints"


def _user_cache(environment: Mapping[str, str]) -> Path:
    if named := environment.get("XDG_CACHE_HOME"):
        return Path(named)
    return _expand(environment.get("HOME") or "~") / ".cache"


def _expand(path: str | Path) -> Path:
    """`~` becomes the home; where the user has none, it stays, and there is no such folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the other one raises there
