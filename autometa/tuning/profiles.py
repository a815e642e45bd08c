"""Profiles of machines: how fast each kind of work is there, so that points measured here tell what to expect there.

A profile is *measured* on its machine (`measure_profile`) and carried elsewhere as YAML, or *stated* from published
figures. Stated ones give speeds relative to the reference machine, and the source of each figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from autometa.core.errors import ConfigError
from autometa.core.settings import dump_yaml, load_yaml
from autometa.core.units import Size, show_bytes
from ingestion.outputs import write_atomically

Kind = Literal["heads", "embedding", "start", "disk"]
"""Kinds of work that get slower or faster each on their own: answers from features on a few threads, networks on all
threads or on a GPU, imports and the start of processes, reading and decoding images."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Speeds(BaseModel):
    """A number for each kind of work; larger is faster. Measured: tasks answered, images embedded, starts of a
    process that imports torch, and images decoded, each in a second. Stated: multiples of the reference machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: float = Field(gt=0, allow_inf_nan=False)
    embedding: float = Field(gt=0, allow_inf_nan=False)
    start: float = Field(gt=0, allow_inf_nan=False)
    disk: float = Field(gt=0, allow_inf_nan=False)

    def times(self, other: Speeds) -> Speeds:
        """Kind by kind the product."""
        return Speeds(**{kind: getattr(self, kind) * getattr(other, kind) for kind in KINDS})

    def over(self, other: Speeds) -> Speeds:
        """Kind by kind the ratio."""
        return Speeds(**{kind: getattr(self, kind) / getattr(other, kind) for kind in KINDS})


class Profile(BaseModel):
    """A machine. One of `measured` and `relative` is given. `gpu_memory`: of the one GPU that a run uses; None: it
    uses the CPU. `gpu_start_s`: what starting the GPU takes. `sources` says where the figures are from and `guessed`
    which are no better than a guess."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    machine: str = ""
    cores: int = Field(ge=1)
    memory: Size = Field(gt=0)
    gpu_memory: Size | None = None
    gpu_start_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    measured: Speeds | None = None
    relative: Speeds | None = None
    sources: Mapping[str, str] = {}
    guessed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_one_kind_of_speeds(self) -> Self:
        if (self.measured is None) == (self.relative is None):
            raise ValueError("give either `measured` or `relative`, each with " + ", ".join(KINDS))
        return self

    @property
    def speeds(self) -> Speeds:
        """As `measure_profile` would find them, about."""
        if self.measured is not None:
            return self.measured
        assert self.relative is not None and REFERENCE.measured is not None
        return self.relative.times(REFERENCE.measured)

    @property
    def is_stated(self) -> bool:
        """Whether nothing was measured on the machine."""
        return self.measured is None

    def faster_than(self, here: Profile) -> Speeds:
        """How many times as fast each kind of work is there as on another machine."""
        return self.speeds.over(here.speeds)

    def save(self, file: Path) -> None:
        """Write it as YAML that `read_profile` reads."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        values |= {key: show_bytes(values[key]) for key in ("memory", "gpu_memory") if key in values}
        lines = [f"{key}: {dump_yaml(value)}" for key, value in values.items()]
        write_atomically(file, "\n".join(["# A profile for autometa tune-budget --profile", *lines, ""]))


REFERENCE = Profile(
    name="reference",
    machine="two cores of a virtual machine, Intel Xeon with AVX-512 and AMX, extra `fast` installed",
    cores=2,
    memory=ByteSize(24 * 10**9),
    measured=Speeds(heads=30.0, embedding=600.0, start=0.3, disk=2000.0),
    sources={
        "embedding": "the fastest engine, EfficientNet-Lite0 at 128 px, on the quiet machine",
        "heads, disk": "measure_profile, the best of its rounds while other work went on: no less",
    },
    guessed=("start",),
)
"""The machine that stated profiles are relative to."""

GPU_COUNT = "a tenth of the peak in single precision, 0.26 GFLOP an image (EfficientNet-Lite0 at 128 px)"

STATED: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="t4",
            machine="a worker of the Cross-Domain MetaDL challenge: 4 virtual cores and an NVIDIA T4",
            cores=4,
            memory=ByteSize(16 * 10**9),
            gpu_memory=ByteSize(16 * 10**9),
            gpu_start_s=4.0,
            relative=Speeds(heads=0.6, embedding=5.2, start=0.6, disk=1.0),
            sources={
                "cores, memory": "rules of the challenge: 10 workers with 4 cores, 16 GB and one T4 each",
                "gpu_memory": "data sheet of the T4: 16 GB at 320 GB/s",
                "embedding": f"data sheet: 8.1 TFLOP/s; {GPU_COUNT}",
            },
            guessed=("heads", "start", "disk", "gpu_start_s", "the tenth of the peak"),
        ),
        Profile(
            name="m60x4",
            machine="the worker of the MetaDL challenges: 24 virtual cores (Xeon E5-2690 v3) and 4 NVIDIA M60",
            cores=24,
            memory=ByteSize(224 * 2**30),
            gpu_memory=ByteSize(8 * 10**9),
            gpu_start_s=6.0,
            relative=Speeds(heads=0.6, embedding=3.1, start=0.5, disk=4.0),
            sources={
                "cores, memory": "rules of the AAAI 2021 challenge: 4 M60, 24 cores, 224 GB; as Azure's "
                "Standard_NV24 with 24 virtual cores, 224 GiB and four GPUs with 8 GiB each (Azure documentation, "
                "NV-series)",
                "gpu_memory": "data sheet of the M60: 8 GB at 160 GB/s for each of its GPUs",
                "embedding": f"data sheet: 4.8 TFLOP/s for each GPU; {GPU_COUNT}",
                "notes": "PyTorch developer mailing list, 4 September 2026: no builds for CUDA 12.6 from 2.15 on, "
                "the last ones with Maxwell (as quoted in Comfy-Org/ComfyUI, pull request 16438)",
            },
            guessed=("heads", "start", "disk", "gpu_start_s", "the tenth of the peak", "that it was NV24"),
            notes=(
                "a run uses one of the four GPUs",
                "builds of PyTorch from 2.15 on have no kernels for this GPU (Maxwell): it needs an older one",
            ),
        ),
        Profile(
            name="pi5",
            machine="a Raspberry Pi 5: 4 Cortex-A76 at 2.4 GHz, 8 GB",
            cores=4,
            memory=ByteSize(8 * 10**9),
            relative=Speeds(heads=0.3, embedding=0.14, start=0.3, disk=0.5),
            sources={
                "cores, memory": "documentation of Zephyr, board rpi_5: quad-core Cortex-A76, 2.4 GHz, 4 or 8 GB",
                "embedding": "ONNX Runtime, float32, YOLOX-Nano (1.08 GFLOP): 21.3 images/s "
                "(visionanalysis.org, ncnn-fp32-vs-onnx-fp32-rpi5), so 23 GFLOP/s; 0.26 GFLOP an image here",
            },
            guessed=("heads", "start", "disk"),
        ),
        Profile(
            name="laptop",
            machine="a laptop of about 2022: 4 fast cores with AVX2, 16 GB, no GPU used",
            cores=4,
            memory=ByteSize(16 * 10**9),
            relative=Speeds(heads=1.1, embedding=1.0, start=1.1, disk=2.0),
            guessed=("cores", "memory", "heads", "embedding", "start", "disk"),
        ),
    )
}
"""Profiles by name. They are predictions of predictions: nothing in them was measured by this project."""


def read_profile(name: str) -> Profile:
    """A stated profile by its name, or one in a YAML file. ConfigError names what is wrong."""
    if name in STATED:
        return STATED[name]
    if name == REFERENCE.name:
        return REFERENCE
    file = Path(name)
    if not file.is_file():
        known = ", ".join(STATED)
        raise ConfigError(
            f"--profile {name}: is neither a file nor one of {known}; measure one on its machine"
        )
    return load_yaml(file, Profile)
