"""What earlier releases have saved still loads and answers as it did; what later ones save is refused in a line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version

from autometa import FewShotClassifier
from autometa.core.errors import ArtifactError
from autometa.model.load import load_learner

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from make_golden import SHOTS, WAYS, golden_images  # noqa: E402

RELEASES = sorted((ROOT / "tests" / "golden").glob("release_*"))
CLOSE = 2e-3
"""Of probabilities: kernels differ in how they round."""


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_what_a_release_has_saved_still_answers(release: Path) -> None:
    images, labels = golden_images()
    support, query = images[: WAYS * SHOTS], images[WAYS * SHOTS :]
    answers = json.loads((release / "answers.json").read_text(encoding="utf-8"))
    learner = load_learner(release / "model").fit(support, labels[: WAYS * SHOTS], WAYS)
    np.testing.assert_allclose(learner.predict(query), answers["learner"], atol=CLOSE)
    classifier = FewShotClassifier.load(release / "classifier")
    assert classifier.classes_.tolist() == ["ant", "bee", "cat"]
    np.testing.assert_allclose(classifier.predict_proba(query), answers["classifier"], atol=CLOSE)
    features = images.reshape(len(images), -1)[:, ::96].astype(np.float32)
    bare = FewShotClassifier.load(release / "precomputed")
    np.testing.assert_allclose(
        bare.predict_proba(features[WAYS * SHOTS :]), answers["precomputed"], atol=CLOSE
    )


def test_there_is_one_of_every_release() -> None:
    """Of those in the changelog, from the first on that kept its files."""
    listed = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line.split("[")[1].split("]")[0] for line in listed if line.startswith("## [")]
    kept = {version for version in versions if version[0].isdigit() and Version(version) >= Version("0.2.0")}
    assert {release.name.removeprefix("release_").replace("_", ".") for release in RELEASES} >= kept


@pytest.mark.parametrize(("saved", "file", "load"), [
    ("model", "learner.json", load_learner),
    ("classifier", "classifier.json", FewShotClassifier.load),
    ("classifier", "learner.json", FewShotClassifier.load),
])  # fmt: skip
@pytest.mark.parametrize("change", ["later", "other", "none", "damaged", "list", "text"])
def test_what_is_of_another_version_is_refused_in_a_line(
    tmp_path: Path, saved: str, file: str, load: Callable[[Path], object], change: str
) -> None:
    shutil.copytree(RELEASES[-1] / saved, tmp_path / saved)
    place = tmp_path / saved / file
    content = json.loads(place.read_text())
    kind = content["format"]
    later = {
        "later": content | {"format": f"{kind[:-1]}99", "new_key": 1},
        "other": content | {"format": "something-else"},
        "none": {key: value for key, value in content.items() if key in ("network", "support")},
        "list": [content],
        "text": kind,
    }
    place.write_text(json.dumps(later[change]) if change != "damaged" else place.read_text()[:-50])
    with pytest.raises(ArtifactError) as caught:
        load(tmp_path / saved)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000 and str(place) in message
    if change in ("later", "other"):
        assert "which this version of autometa does not read" in message
        assert "; install the version that wrote it, or copy the folder again" in message
