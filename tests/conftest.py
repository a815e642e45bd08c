"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import first_of_all  # first: what follows takes less time
import hypothesis
import pytest
import torch
from hypothesis.configuration import set_hypothesis_home_dir
from synthetic import MakeBundle, write_bundle
from wanting import judge_skip

from autometa.backbones import CATALOGUE, Backbone, BackboneSpec, build
from autometa.core import machine

if TYPE_CHECKING:
    from pretend_gpu import Card

if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores have tests of their own
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of child processes


SANDBOXES = ["bubblewrap", "landlock"]

# What Hypothesis keeps does not belong into a checkout.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "autometa-hypothesis")
SLOW_MACHINES = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile(
    "few",
    derandomize=True,
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=SLOW_MACHINES,
)
hypothesis.settings.register_profile(  # pytest --hypothesis-profile many tests/properties
    "many", max_examples=2000, deadline=None, database=None, suppress_health_check=SLOW_MACHINES
)
hypothesis.settings.load_profile("few")


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `.ci/extras` asks for."""
    parser.addoption(
        "--all-extras",
        action="store_true",
        help="all extras and sandboxes are there: a test that is skipped for want of one fails",
    )
    parser.addoption(
        "--without",
        action="append",
        default=[],
        choices=SANDBOXES,
        help="except this one, which cannot be here",
    )


def pytest_collection_finish() -> None:
    """Tests run as usual."""
    first_of_all.look_for_it_from_here_on()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With `--all-extras`, turn skips for want of something into failures; without, note the names of these tests in
    the file `$AUTOMETA_SKIPPED`, if it is set."""
    report = yield
    options = item.config.option
    judge_skip(report, item.nodeid, all_extras=options.all_extras, without=options.without)
    return report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """`make_bundle(fit=…, predict=…, meta_fit=…, config=…)`: a bundle whose methods have these bodies.

    By default it answers with the truth that can be had from colour alone: the nearest class mean.
    """

    def make(
        *,
        meta_fit: str = "return MyLearner()",
        fit: str = "return MyPredictor(support_set)",
        predict: str = "return self.nearest(query_set)",
        top: str = "",
        config: dict[str, object] | None = None,
        name: str = "bundle",
    ) -> Path:
        parts = {"TOP": top, "META_FIT": meta_fit, "FIT": fit, "PREDICT": predict}
        return write_bundle(tmp_path / name, parts, config)

    return make


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalogue row whose network is tiny and has (seeded) random weights."""
    spec = BackboneSpec("tiny", "test_resnet", 0.5, 64, "none")
    monkeypatch.setitem(CATALOGUE, "tiny", spec)

    def seeded(_: object, model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.1, generator=generator)

    monkeypatch.setattr(build, "load_pretrained", seeded)
    return "tiny"


@pytest.fixture(autouse=True)
def own_variables() -> Iterator[None]:
    """What a command tells other processes by variables ends with its test."""
    before = dict(os.environ)
    yield
    for name in [name for name in os.environ if name.startswith("AUTOMETA_")]:
        if name not in before:
            del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name.startswith("AUTOMETA_")})


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare with figures of the CPU, on a machine with a GPU too, and so do programs that they start."""
    monkeypatch.setattr(machine, "_find_device", lambda: "cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def gpu(on_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """This machine has a GPU, which is pretended."""
    from pretend_gpu import pretended_gpu  # noqa: PLC0415 - takes a second to import

    monkeypatch.setattr(machine, "_find_device", lambda: "cuda")
    with pretended_gpu(monkeypatch) as card:
        yield card


@pytest.fixture
def eager_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks run eagerly, whatever engines are installed: no race takes time, and features are rounded alike."""
    monkeypatch.setattr(Backbone, "prepare", lambda *_, **__: None)
