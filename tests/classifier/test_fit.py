"""`autometa fit` and `autometa classify`: from a folder to classes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from colours import COLOURS, picture, write_folder
from pydantic import ByteSize

from autometa.backbones import build
from autometa.classifier import FewShotClassifier, reading
from autometa.classifier.options import FitOptions
from autometa.classifier.output_folder import claim_folder, clear_folder
from autometa.classifier.sources import trained_preparation
from autometa.classifier.training import fit_folder
from autometa.cli.main import cli
from autometa.core.errors import ArtifactError, ConfigError, WeightsError
from autometa.systems.fixed import FixedSystem
from ingestion.decoding import Pace
from ingestion.errors import InputError
from ingestion.loose_images import encode_pixels


@pytest.fixture(autouse=True)
def young(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget counts from the start of the program, which is that of all tests."""
    monkeypatch.setattr("autometa.cli.fit.process_age_s", lambda: 1.0)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(each) for each in arguments])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def model(network: str, cache: None, tmp_path: Path) -> Path:
    data = write_folder(tmp_path / "data", 3)
    fit_folder(data, FitOptions(output=tmp_path / "model", backbones=network), lambda line: None)
    return tmp_path / "model"


@pytest.mark.medium
def test_two_classes_with_an_image_each_are_fitted_and_then_classified(
    network: str, cache: None, tmp_path: Path
) -> None:
    data = write_folder(tmp_path / "data", 1, ("red", "blue"))
    lines: list[str] = []
    fitted = fit_folder(data, FitOptions(output=tmp_path / "model", backbones=network), lines.append)
    assert any("too few to learn from" in line for line in lines), lines
    assert fitted.figures["classes"] == 2 and fitted.figures["images"] == 2
    loaded = FewShotClassifier.load(tmp_path / "model")
    assert loaded.predict([picture("red", 9), picture("blue", 9)]).tolist() == ["red", "blue"]


def test_one_class_is_not_enough(network: str, cache: None, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 2, ("red",))
    with pytest.raises(InputError, match="one class, `red` with images that can be read; two are needed"):
        fit_folder(data, FitOptions(output=tmp_path / "model", backbones=network), lambda line: None)


def test_a_folder_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty, and no model; name another folder"):
        claim_folder(tmp_path, overwrite=True)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "learner.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds a model; add --overwrite"):
        claim_folder(tmp_path, overwrite=False)
    assert claim_folder(tmp_path, overwrite=True) == tmp_path.resolve()


@pytest.mark.medium
def test_classify_answers_in_words_csv_and_json(model: Path, tmp_path: Path) -> None:
    new = write_folder(tmp_path / "new", 2)
    plain = call("classify", model, new / "red" / "1.png")
    assert plain.exit_code == 0 and plain.output.startswith(f"{new / 'red' / '1.png'}: red (")
    table = list(csv.DictReader(io.StringIO(call("classify", model, new, "--csv").output)))
    assert [row["class"] for row in table] == ["blue"] * 2 + ["green"] * 2 + ["red"] * 2
    np.testing.assert_allclose([sum(float(row[colour]) for colour in COLOURS) for row in table], 1, atol=1e-4)
    records = json.loads(call("classify", model, new, "--json").output)
    assert records[0]["class"] == "blue" and set(records[0]["probabilities"]) == set(COLOURS)


@pytest.mark.medium
def test_classify_takes_other_classes_and_backbones_as_they_are(
    model: Path, tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = write_folder(tmp_path / "support", 1, ("red", "green"))
    (support / "green").rename(support / "leaf")
    (tmp_path / "leaf.png").write_bytes(encode_pixels(picture("green", 9)))
    given = call("classify", model, "--support", support, tmp_path / "leaf.png")
    assert given.exit_code == 0 and ": leaf (" in given.output
    monkeypatch.setattr("autometa.classifier.sources.installed_backbones", lambda: [])
    assert (
        "no pretrained backbone"
        in call("classify", "auto", "--support", support, tmp_path / "leaf.png").output
    )


@pytest.mark.medium
def test_an_image_that_cannot_be_read_does_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "good.png").write_bytes(encode_pixels(picture("blue", 9)))
    given = call("classify", model, tmp_path / "bad.png", tmp_path / "good.png", "--csv")
    assert given.exit_code == 1 and "bad.png: not a usable image" in given.stderr
    rows = list(csv.DictReader(io.StringIO(given.stdout)))
    assert [row["class"] for row in rows] == ["", "blue"]


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere", "x.png"), "no such file or folder"),
    (("model", "empty"), "no image in this folder"),
    (("model", "picture.png", "--csv", "--json"), "exclude each other"),
    (("model", "picture.png", "--transductive"), "need --support"),
    (("model", "picture.png", "--support", "one"), "there is one class"),
    (("empty", "picture.png"), "remembers no classes; add --support DIR"),
    (("empty", "picture.png", "--support", "two"), "holds no learner.json"),
])  # fmt: skip
def test_every_wrong_turn_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").write_bytes(encode_pixels(picture("blue", 9)))
    write_folder(tmp_path / "one", 1, ("red",))
    write_folder(tmp_path / "two", 1, ("red", "blue"))
    given = call("classify", *arguments)
    assert given.exit_code == 2 and message in given.output, given.output
    assert "Traceback" not in given.output and len(given.stderr.strip().splitlines()) <= 4


@pytest.mark.slow
def test_fit_learns_from_many_classes_within_its_budget(network: str, cache: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "data" / f"class {number}"
        folder.mkdir(parents=True)
        pattern = rng.integers(0, 256, (6, 6, 3))
        for i in range(10):
            pixels = np.kron(pattern + rng.integers(-40, 40, (6, 6, 3)), np.ones((8, 8, 1)))
            (folder / f"{i}.png").write_bytes(encode_pixels(np.clip(pixels, 0, 255).astype(np.uint8)))
    given = call(
        "fit",
        tmp_path / "data",
        "-o",
        tmp_path / "model",
        "--time-budget",
        "60s",
        "--backbones",
        network,
        "--json",
    )
    assert given.exit_code == 0, given.output
    record = json.loads(given.stdout)
    assert record["stage"] == "final" and record["classes"] == 8 and "normalised_accuracy" in record
    table = json.loads(call("classify", tmp_path / "model", tmp_path / "data", "--json").stdout)
    right = [Path(row["image"]).parent.name == row["class"] for row in table]
    assert np.mean(right) > 0.9


@pytest.mark.medium
def test_few_classes_are_learned_from_by_a_fixed_recipe(network: str, cache: None, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 5, ("red", "blue", "green"))
    options = FitOptions(output=tmp_path / "model", backbones=network)
    fitted = fit_folder(data, options, lambda line: None)
    assert fitted.figures["stage"] == "final" and "normalised_accuracy" not in fitted.figures
    written = json.loads((tmp_path / "model" / "classifier.json").read_text())["serving"]
    assert written == fitted.figures["serving"] and written["latency"]["support_images"] == 15
    size = sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors"))
    assert size < written["bytes"] < size + 10_000
    loaded = FewShotClassifier.load(tmp_path / "model")
    assert len(loaded.summary()["members"]) == 2 and "one@128" in loaded.summary()["members"]
    assert loaded.predict([picture("green", 9), picture("blue", 9)]).tolist() == ["green", "blue"]


@pytest.mark.medium
def test_a_model_is_no_larger_than_asked(network: str, cache: None, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 9, ("red", "blue", "green"))
    options = FitOptions(output=tmp_path / "model", backbones=network)
    whole = fit_folder(data, options, lambda line: None).figures["serving"]["bytes"]
    limit, lines = int(0.9 * whole), list[str]()
    limited = FitOptions(output=tmp_path / "small", backbones=network, max_model_size=ByteSize(limit))
    fitted = fit_folder(data, limited, lines.append)
    assert fitted.figures["serving"]["bytes"] <= limit
    assert any("over --max-model-size" in line for line in lines), lines
    assert fitted.classifier.predict([picture("green", 9)]).tolist() == ["green"]
    impossible = FitOptions(output=tmp_path / "none", backbones=network, max_model_size=ByteSize(1000))
    with pytest.raises(ConfigError, match=r"--max-model-size 1000B: the cheapest candidate, one@64, takes"):
        fit_folder(data, impossible, lines.append)


@pytest.mark.medium
def test_backbones_as_they_are_keep_limits_too(network: str, cache: None, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", 1, ("red", "blue"))
    impossible = FitOptions(
        output=tmp_path / "model", backbones=network, infer_limit=0.001, adapt_limit=0.001
    )
    with pytest.raises(
        ConfigError, match=r"^--(infer|adapt)-limit 1ms: the cheapest candidate, one@64, takes"
    ):
        fit_folder(data, impossible, lambda line: None)
    possible = FitOptions(output=tmp_path / "model", backbones=network, infer_limit=3600.0, overwrite=True)
    fitted = fit_folder(data, possible, lambda line: None)
    assert fitted.classifier.predict([picture("blue", 9)]).tolist() == ["blue"]


@pytest.mark.medium
def test_where_there_is_no_time_to_decode_all_images_each_class_gives_a_share(
    network: str, cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FEW_IMAGES", 10)
    data = write_folder(tmp_path / "data", 8)
    all_of_them = fit_folder(data, FitOptions(output=tmp_path / "all", backbones=network), lambda line: None)
    assert all_of_them.figures["images"] == 3 * 8
    monkeypatch.setenv("AUTOMETA_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setattr(reading, "measure_pace", lambda *_: Pace(read_s=0.0, decode_s=8.0))
    options = FitOptions(output=tmp_path / "model", backbones=network, time_budget=100)
    lines: list[str] = []
    fitted = fit_folder(data, options, lines.append)
    assert any("% of each class are learned from" in line for line in lines), lines
    assert fitted.figures["images"] == 3 * 2 and fitted.figures["classes"] == 3


def test_what_is_overwritten_is_gone(network: str, cache: None, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "member-old").mkdir(parents=True)
    for name in ("learner.json", "journal.jsonl", "stages.json", "choices.json", "backbone-1.safetensors"):
        (folder / name).write_text("{}")
    (folder / "notes.txt").write_text("mine")
    before = sorted(folder.iterdir())
    claim_folder(folder, overwrite=True)
    assert sorted(folder.iterdir()) == before  # not before the new input is known to be sound
    clear_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.medium
def test_other_files_beside_a_model_have_no_effect(network: str, cache: None, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"mine": 1}')
    data = write_folder(tmp_path / "data", 5)
    fitted = fit_folder(data, FitOptions(output=tmp_path / "birds", backbones=network), lambda line: None)
    assert trained_preparation(fitted.folder).px == 128
    (fitted.folder / "classifier.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"classifier\.json: does not say how images were prepared"):
        trained_preparation(fitted.folder)


@pytest.mark.medium
def test_an_interrupt_keeps_what_was_learned(
    network: str, cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FixedSystem, "run", interrupted)
    data = write_folder(tmp_path / "data", 5)
    given = call("fit", data, "-o", tmp_path / "model", "--backbones", network, "-v")
    assert given.exit_code == 0 and "interrupted: what was learned so far is saved" in given.output
    loaded = FewShotClassifier.load(tmp_path / "model")
    assert loaded.predict([picture("green", 9)]).tolist() == ["green"]


@pytest.mark.medium
def test_an_earlier_model_stays_until_the_new_input_is_sound(
    model: Path, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of images, the weights and the limits are looked at before anything is deleted."""
    before = {path.name: path.stat().st_mtime_ns for path in model.iterdir()}
    many = tmp_path / "many"
    for number, colour in enumerate(4 * tuple(COLOURS)):
        for place in range(3):
            file = many / f"class {number}" / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode_pixels(picture(colour, 10 * number + place)))
    common = ("-o", model, "--overwrite", "--time-budget", "30s", "--backbones", network)
    for arguments, told in (
        ((tmp_path / "phtos", *common), "does not exist"),
        ((tmp_path / "data", *common, "--class-split", tmp_path / "no.json"), "no.json"),
        ((tmp_path / "data", *common, "--max-model-size", "1kB"), "--max-model-size 1000B"),
        ((many, *common, "--max-model-size", "1kB"), "--max-model-size 1000B"),
        ((many, *common), "no weights of it"),
    ):
        if told == "no weights of it":
            monkeypatch.setattr(build, "load_pretrained", lack_weights)
        given = call("fit", *arguments)
        assert given.exit_code in {1, 2} and told in given.output, given.output
        assert {path.name: path.stat().st_mtime_ns for path in model.iterdir()} == before


def lack_weights(*_: object) -> None:
    raise WeightsError("no weights of it")


@pytest.mark.medium
def test_what_a_fit_without_weights_has_left_is_in_nobodys_way(
    network: str, cache: None, tmp_path: Path
) -> None:
    data, folder = write_folder(tmp_path / "data", 3), tmp_path / "model"
    folder.mkdir()
    for name in ("journal.jsonl", "stages.json", "choices.json", ".learner.json.123"):
        (folder / name).write_text("{}")
    given = call("fit", data, "-o", folder, "--time-budget", "30s", "--backbones", network)
    assert given.exit_code == 0, given.output
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.safetensors").touch()  # not of a fit, as far as anyone can tell
    with pytest.raises(ConfigError, match="is not empty, and no model"):
        claim_folder(tmp_path / "weights", overwrite=True)
    (folder / "notes.txt").touch()
    (folder / "learner.json").unlink()
    (folder / "classifier.json").unlink()
    with pytest.raises(ConfigError, match="is not empty, and no model"):
        claim_folder(folder, overwrite=True)


@pytest.mark.medium
def test_classify_finds_what_fit_finds_and_names_the_rest(model: Path, tmp_path: Path) -> None:
    new, elsewhere = tmp_path / "new", tmp_path / "elsewhere"
    for folder in (new, elsewhere):
        folder.mkdir()
    image = encode_pixels(picture("blue", 9))
    for file in (new / "a.png", new / "nosuffix", elsewhere / "z.png"):
        file.write_bytes(image)
    (new / "link").symlink_to(elsewhere)
    (new / ".hidden.png").write_bytes(image)
    (new / "notes.txt").write_text("mine")
    given = call("classify", model, new)
    assert given.exit_code == 0 and given.stderr == "", given.stderr
    names = [line.partition(": blue")[0] for line in given.stdout.splitlines()]
    assert names == [str(new / name) for name in ("a.png", "link/z.png", "nosuffix")]
    (new / "gone").symlink_to(tmp_path / "nowhere")
    given = call("classify", model, new)
    assert given.exit_code == 1 and f"not classified: {new}: 1 link leads nowhere: gone" in given.stderr


@pytest.mark.medium
def test_heic_is_named_with_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.folders.image_suffixes", lambda: frozenset({".png"}))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "IMG_1.HEIC").write_bytes(b"heic")
    given = call("classify", model, tmp_path / "new")
    assert given.exit_code == 2 and "pip install pillow-heif" in given.output
    (tmp_path / "new" / "a.png").write_bytes(encode_pixels(picture("red", 9)))
    given = call("classify", model, tmp_path / "new")
    assert (
        given.exit_code == 1 and "1 .heic file cannot be read here; pip install pillow-heif" in given.stderr
    )
    assert "a.png: red (" in given.stdout


@pytest.mark.medium
def test_none_of_these_has_no_probability_of_a_class(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = write_folder(tmp_path / "support", 4, ("red", "green"))
    (tmp_path / "odd.png").write_bytes(encode_pixels(picture("red", 9)))
    monkeypatch.setattr(
        "autometa.classifier.estimator.replace_rejected", lambda labels, mask, label: np.array([label])
    )
    given = call("classify", model, "--support", support, "--reject-below", "0.5", tmp_path / "odd.png")
    assert given.stdout == f"{tmp_path / 'odd.png'}: none of these (nearest: red)\n", given.output


@pytest.mark.medium
def test_a_broken_example_is_named_and_set_aside(model: Path, tmp_path: Path) -> None:
    support = write_folder(tmp_path / "support", 2, ("red", "green"))
    (support / "red" / "broken.png").write_text("no image")
    (tmp_path / "new.png").write_bytes(encode_pixels(picture("red", 9)))
    given = call("classify", model, "--support", support, tmp_path / "new.png")
    assert given.exit_code == 0 and ": red (" in given.stdout, given.output
    assert "broken.png (not an image that Pillow knows)" in given.stderr


@pytest.mark.medium
def test_a_classifier_of_features_says_that_it_classifies_no_images(tmp_path: Path) -> None:
    made = FewShotClassifier(encoder="precomputed").fit(np.eye(4), ["a", "a", "b", "b"])
    made.save(tmp_path / "model")
    (tmp_path / "new.png").write_bytes(encode_pixels(picture("red", 9)))
    given = call("classify", tmp_path / "model", tmp_path / "new.png")
    assert given.exit_code == 2 and "was made of features, so it classifies no images" in given.output
    with pytest.raises(ValueError, match="made of features"):
        made.read([tmp_path / "new.png"])
