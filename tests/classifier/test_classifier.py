"""The classifier: what it takes, what it answers, what it remembers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from colours import picture, pictures, write_folder
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import check_estimator

from autometa.backbones.engines import EAGER, EngineChoice
from autometa.classifier import FewShotClassifier
from autometa.classifier.options import FitOptions
from autometa.classifier.pictures import as_sequence, read_image
from autometa.classifier.portfolio_space import PortfolioSpace
from autometa.classifier.training import fit_folder
from autometa.core.errors import ArtifactError, ConfigError
from ingestion import Preparation


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_it_keeps_all_conventions_of_scikit_learn_with_features() -> None:
    results = check_estimator(FewShotClassifier(encoder="precomputed"), on_fail="raise")
    skipped = {each["check_name"] for each in results if each["status"] != "passed"}
    assert len(results) > 40 and skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}


def test_two_classes_with_one_image_each_are_enough(network: str) -> None:
    images = np.stack([picture("red", 0), picture("blue", 0)])
    classifier = FewShotClassifier(preset=network).fit(images, ["red", "blue"])
    assert classifier.classes_.tolist() == ["blue", "red"]
    queries, labels = pictures(4, start=10, colours=("blue", "red"))
    assert classifier.score(queries, labels) == 1
    np.testing.assert_allclose(classifier.predict_proba(queries).sum(1), 1)


def test_every_kind_of_image_gives_the_same_answer(network: str, tmp_path: Path) -> None:
    images, labels = pictures(2)
    folder = write_folder(tmp_path / "data", 2)
    files = [folder / label / f"{i}.png" for label in ("blue", "green", "red") for i in range(2)]
    classifier = FewShotClassifier(preset=network).fit(images, labels)
    expected = classifier.predict_proba(images)
    objects = np.empty(len(files), object)
    objects[:] = files
    channels_first = np.moveaxis(images, -1, 1)
    for given in (
        files,
        list(map(str, files)),
        objects,
        [Image.fromarray(image) for image in images],
        channels_first,
        torch.from_numpy(channels_first.copy()),
        torch.from_numpy(channels_first / np.float32(255)),
        list(images),
    ):
        np.testing.assert_array_equal(classifier.predict_proba(given), expected)


@pytest.mark.parametrize(("images", "message"), [
    ("one.jpg", "one image was given where several are expected"),
    ([], "0 sample"),
    ([1], "image 0 is a int"),
    (np.zeros((4, 4), np.uint8), r"shape \[4, 4\]"),
    (np.zeros((8, 8, 3), np.uint8), r"looks like one image; write image\[None\]"),
    (np.zeros((2, 8, 8, 5), np.uint8), "1, 3 or 4 channels"),
    (np.full((2, 8, 8, 3), 2.0), "outside 0 … 1"),
    (np.zeros((2, 8, 8, 3), np.int32), "type int32; give uint8"),
    (["nowhere.png"], "nowhere.png: no such file"),
])  # fmt: skip
def test_what_is_no_batch_of_images_is_refused_in_one_line(
    network: str, images: object, message: str
) -> None:
    classifier = FewShotClassifier(preset=network).fit(*pictures(1))
    with pytest.raises(ValueError, match=message) as error:
        classifier.predict(images)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_image_is_named(network: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    classifier = FewShotClassifier(preset=network).fit(*pictures(1))
    with pytest.raises(ValueError, match=r"notes.png: not a usable image"):
        classifier.predict([tmp_path / "notes.png"])


def test_an_answer_does_not_depend_on_its_batch_unless_it_is_asked_for(network: str) -> None:
    examples, (queries, _) = pictures(2), pictures(4, start=10)
    alone = FewShotClassifier(preset=network).fit(*examples)
    together = alone.predict_proba(queries)
    one_by_one = np.concatenate([alone.predict_proba(query[None]) for query in queries])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)
    jointly = FewShotClassifier(preset=network, transductive=True).fit(*examples)
    assert np.abs(jointly.predict_proba(queries) - together).max() > 1e-3


def test_examples_are_added_without_training_also_of_new_classes(network: str) -> None:
    images, labels = pictures(2)
    first = [label != "green" for label in labels]
    grown = FewShotClassifier(preset=network).fit(images[first], [y for y in labels if y != "green"])
    rest = ~np.array(first)
    grown.add_examples(images[rest], ["green"] * 2)
    whole = FewShotClassifier(preset=network).fit(images, labels)
    assert grown.classes_.tolist() == whole.classes_.tolist() == ["blue", "green", "red"]
    queries, _ = pictures(2, start=5)
    np.testing.assert_allclose(grown.predict_proba(queries), whole.predict_proba(queries), atol=1e-5)


def test_none_of_these(network: str) -> None:
    images, labels = pictures(3, colours=("blue", "red"))
    classifier = FewShotClassifier(preset=network, reject_below=0.5).fit(images, labels)
    known, _ = pictures(3, start=10, colours=("blue", "red"))
    unknown, _ = pictures(3, start=10, colours=("green",))
    likely, unlikely = classifier.known_probability(known), classifier.known_probability(unknown)
    assert likely.min() > unlikely.max()
    threshold = (likely.min() + unlikely.max()) / 2
    strict = FewShotClassifier(preset=network, reject_below=threshold).fit(images, labels)
    assert set(strict.predict(unknown)) == {"none of these"} and set(strict.predict(known)) == {"blue", "red"}
    numbered = FewShotClassifier(preset=network, reject_below=threshold).fit(images, [7] * 3 + [9] * 3)
    assert set(numbered.predict(unknown)) == {-1}
    with pytest.raises(ValueError, match="needs two classes and two images of some"):
        classifier.fit(images[[0, 3]], ["blue", "red"])
    with pytest.raises(ValueError, match="reject_below = 2: a probability"):
        FewShotClassifier(preset=network, reject_below=2).fit(images, labels)
    with pytest.raises(ValueError, match="needs reject_below"):
        FewShotClassifier(preset=network).fit(images, labels).known_probability(known)


@pytest.mark.medium
def test_it_survives_pickle_clone_and_files(network: str, tmp_path: Path) -> None:
    images, labels = pictures(2)
    classifier = FewShotClassifier(preset=network, reject_below=0.1).fit(images, labels)
    queries, _ = pictures(2, start=5)
    expected = classifier.predict_proba(queries)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(queries), expected)
    classifier.save(tmp_path / "saved")
    loaded = FewShotClassifier.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.predict_proba(queries), expected, atol=1e-6)
    np.testing.assert_allclose(loaded.known_probability(queries), classifier.known_probability(queries))
    again = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_allclose(again.predict_proba(queries), expected, atol=1e-6)
    fresh = clone(loaded).fit(images, labels)
    np.testing.assert_allclose(fresh.predict_proba(queries), expected, atol=1e-5)
    assert not list((tmp_path / "saved").glob("*.pkl"))


def test_numbers_and_booleans_are_classes_too(network: str, tmp_path: Path) -> None:
    images, _ = pictures(1, colours=("blue", "red"))
    for values in ([3, 5], [1.0, 2.0], [False, True]):
        classifier = FewShotClassifier(preset=network).fit(images, values[::-1])
        classifier.save(tmp_path / "saved")
        loaded = FewShotClassifier.load(tmp_path / "saved")
        assert loaded.classes_.tolist() == values and loaded.classes_.dtype == np.array(values).dtype


def test_a_damaged_or_missing_model_is_told_in_one_line(network: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no saved classifier"):
        FewShotClassifier.load(tmp_path)
    with pytest.raises(ArtifactError, match=r"holds no learner.json; name the folder that `autometa fit -o`"):
        FewShotClassifier(tmp_path).fit(*pictures(1))
    FewShotClassifier(preset=network).fit(*pictures(1)).save(tmp_path / "saved")
    (tmp_path / "saved" / "classifier.json").write_text("{}")
    with pytest.raises(ArtifactError, match="damaged, or of another version"):
        FewShotClassifier.load(tmp_path / "saved")


def test_wrong_parameters_and_examples_are_refused(network: str) -> None:
    images, labels = pictures(1)
    with pytest.raises(ValueError, match="two classes or more; there is one class: red"):
        FewShotClassifier(preset=network).fit(images, ["red"] * 3)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FewShotClassifier(preset=network).fit(images, labels[:2])
    with pytest.raises(ValueError, match="encoder = 'mine'"):
        FewShotClassifier(encoder="mine").fit(images, labels)
    with pytest.raises(ValueError, match="image_size = 5"):
        FewShotClassifier(preset=network, image_size=5).fit(images, labels)
    with pytest.raises(ConfigError, match="preset = ' '"):
        FewShotClassifier(preset=" ").fit(images, labels)


@pytest.mark.medium
def test_it_works_inside_tools_of_scikit_learn(network: str) -> None:
    images, labels = pictures(4)
    classifier = FewShotClassifier(preset=network, image_size=32)
    assert cross_val_score(classifier, images, labels, cv=2).mean() == 1
    piped = Pipeline([("classify", classifier)]).fit(images, labels)
    assert piped.score(images, labels) == 1
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(images, labels)
    assert calibrated.score(images, labels) == 1
    vote = VotingClassifier([("a", classifier), ("b", clone(classifier))], voting="soft").fit(images, labels)
    assert vote.score(images, labels) == 1


def test_it_tells_what_it_is_made_of(network: str) -> None:
    images, labels = pictures(2)
    classifier = FewShotClassifier(preset=network).fit(images, labels)
    summary = classifier.summary()
    assert summary["examples"] == {"blue": 2, "green": 2, "red": 2}
    assert summary["members"] == {"one@64": 1.0} and summary["image_size"] == 128
    rows = classifier.leaderboard()
    rows = rows if isinstance(rows, list) else rows.to_dict("records")
    assert rows[0]["member"] == "all" and rows[0]["images"] == 6 and rows[0]["accuracy"] == 1
    embedded = classifier.embed(images)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-3)
    with pytest.raises(ValueError, match="no class has two examples"):
        FewShotClassifier(preset=network).fit(*pictures(1)).leaderboard()


@pytest.mark.medium
@pytest.mark.parametrize("learned", [False, True])
def test_an_exported_graph_gives_the_same_probabilities(network: str, tmp_path: Path, learned: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    if learned:
        options = FitOptions(output=tmp_path / "model", backbones=network)
        classifier = fit_folder(write_folder(tmp_path / "data", 6), options, lambda line: None).classifier
    else:
        classifier = FewShotClassifier(preset=network).fit(*pictures(2))
    queries, _ = pictures(3, start=50)
    file = classifier.export(tmp_path)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    pixels = np.stack([read_image(one, Preparation(128)) for one in as_sequence(queries)])
    (given,) = session.run(None, {"images": pixels})
    np.testing.assert_allclose(given, classifier.predict_proba(queries), atol=0.02)
    with pytest.raises(ValueError, match="format = 'h5'"):
        classifier.export(tmp_path, format="h5")


def test_engines_are_chosen_again_where_many_images_come(network: str) -> None:
    classifier = FewShotClassifier(preset=network).fit(*pictures(1))
    space = classifier._source.space
    assert isinstance(space, PortfolioSpace)
    backbone = space.portfolio.shelf("one")
    eager = EngineChoice(EAGER, backbone._eager, 0.0, {})
    backbone.engines.keep(64, eager)
    queries, _ = pictures(1)
    classifier.predict(queries)
    assert backbone.choice(64) is eager
    space.encode(np.zeros((2, 3, 32, 32), np.uint8), ahead=1000)
    assert backbone.choice(64) is None


def test_images_in_memory_are_prepared_as_their_files(network: str) -> None:
    white = np.zeros((6, 40, 40, 4), np.uint8)
    white[:, 10:30, 10:30] = 255  # a white drawing on a transparent ground
    classifier = FewShotClassifier(preset=network).fit(white, ["a", "b"] * 3)
    assert classifier._preparation is not None and classifier._preparation.ground == 0
    deep = [Image.fromarray(np.full((40, 40), 100 * value, np.uint16)) for value in range(6)]
    classifier.fit(deep, ["a", "b"] * 3)
    assert classifier._preparation.grey_high is not None and classifier._preparation.grey_high <= 500


def test_a_pickle_names_the_backbones_that_it_was_made_with(network: str) -> None:
    classifier = FewShotClassifier(preset=network).fit(*pictures(1))
    classifier.set_params(preset="large")
    again = pickle.loads(pickle.dumps(classifier))
    assert again.summary()["members"] == {"one@64": 1.0}
