"""Class-level split files: both forms, and what is wrong with them in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle, write_meta_album

from ingestion import InputError, class_splits
from ingestion.bundle import SubmissionConfig
from ingestion.class_splits import TRAIN, VALID, ClassSplit, divide_source, read_class_split
from ingestion.inputs import _find_source
from ingestion.prepare import _validation
from ingestion.settings import IngestionSettings
from ingestion.sources import read_source
from ingestion.splits import split_source
from ingestion.tasks import TaskConfig

SPLIT = ClassSplit(("heron", "stork"), ("ibis",), ("crane", "egret"))
AS_JSON = {"meta-train": ["heron", "stork"], "meta-valid": ["ibis"], "meta-test": ["crane", "egret"]}
TABLES = {
    "train.csv": "filename,label\nh1.jpg,heron\ns1.jpg,stork\nh2.jpg,heron\n",
    "val.csv": "filename,label\ni1.jpg,ibis\n",
    "test.csv": "filename,label\nc1.jpg,crane\n\ne1.jpg,egret\n",
}

OF_SET: dict[str, list[str]] = {
    "meta-train": ["class 6", "class 1", "class 3"],
    "meta-valid": ["class 4", "class 0"],
    "meta-test": ["class 2", "class 5"],
}
"""Of the eight classes of the fixture `dataset`."""
SAY_CLASSES = """
    for one in meta_train_generator.image_sets:
        print("learns from", one.name, int(one.labels.max()) + 1, "classes")
    if meta_valid_generator is not None:
        task = next(iter(meta_valid_generator(1)))
        print("validates on", task.dataset)
    return MyLearner()
"""


def json_file(folder: Path, content: object) -> Path:
    file = folder / "split.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def tables(folder: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_both_forms_are_read(tmp_path: Path) -> None:
    assert read_class_split(json_file(tmp_path, AS_JSON)) == SPLIT
    assert read_class_split(tables(tmp_path, TABLES)) == SPLIT


def test_validation_may_be_left_out(tmp_path: Path) -> None:
    without = ClassSplit(SPLIT.train, (), SPLIT.test)
    content = {key: names for key, names in AS_JSON.items() if key != "meta-valid"}
    assert read_class_split(json_file(tmp_path, content)) == without
    assert read_class_split(json_file(tmp_path, {**content, "meta-valid": []})) == without
    assert read_class_split(tables(tmp_path, {**TABLES, "val.csv": "filename,label\n"})) == without
    (tmp_path / "val.csv").unlink()
    assert read_class_split(tmp_path) == without


def test_tables_of_spreadsheets_are_read(tmp_path: Path) -> None:
    odd = "\ufeffFilename, Label \r\nh1.jpg, heron\r\ns1.jpg,stork\r\n"
    assert read_class_split(tables(tmp_path, {**TABLES, "train.csv": odd})) == SPLIT


def test_the_digest_tells_splits_apart_and_not_their_forms() -> None:
    turned = ClassSplit(SPLIT.train[::-1], SPLIT.validation, SPLIT.test[::-1])
    moved = ClassSplit((*SPLIT.train, "ibis"), (), SPLIT.test)
    assert SPLIT.digest == turned.digest != moved.digest
    assert re.fullmatch("[0-9a-f]{12}", SPLIT.digest)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "split.json: is no object; write an object with `meta-train`, `meta-valid`, `meta-test`"),
        ({**AS_JSON, "train": []}, "split.json: unknown key `train`; it may have `meta-train`"),
        ({**AS_JSON, "meta-test": "crane"}, "`meta-test` = 'crane' is no list of class names"),
        ({**AS_JSON, "meta-test": ["crane", 5]}, "`meta-test` = ['crane', 5] is no list of class names"),
        ({**AS_JSON, "meta-test": ["crane", ""]}, "is no list of class names"),
        (
            {**AS_JSON, "meta-test": ["crane", "egret", "crane"]},
            "`meta-test` names the class `crane` twice",
        ),
        ({**AS_JSON, "meta-test": ["heron"]}, "class `heron` is in meta-train and in meta-test"),
        ({**AS_JSON, "meta-train": []}, "split.json: no class for meta-train; name some"),
        ({"meta-train": ["heron"]}, "split.json: no class for meta-test; name some"),
    ],
)
def test_a_wrong_json_file_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_class_split(json_file(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["}", ",}"])
def test_a_part_that_comes_twice_is_refused(tmp_path: Path, end: str) -> None:
    again = json.dumps(AS_JSON)[:-1] + ', "meta-test": ["egret"]' + end
    (tmp_path / "split.json").write_text(again)
    message = "split.json: the key `meta-test` comes twice in one object; delete one of them"
    with pytest.raises(InputError, match=re.escape(message)):
        read_class_split(tmp_path / "split.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.csv", "h1.jpg,heron\n", "train.csv: no column `label` in its first line (h1.jpg, heron)"),
        ("train.csv", "", "train.csv: no column `label`"),
        ("test.csv", "filename,label\nc1.jpg\n", "test.csv, line 2: no label"),
        ("test.csv", "filename,label\nc1.jpg,crane\ne1.jpg, \n", "test.csv, line 3: no label"),
        ("test.csv", "filename,label\n", "no class for meta-test"),
        ("test.csv", "filename,label\nx.jpg,ibis\n", "class `ibis` is in meta-valid and in meta-test"),
        ("val.csv", f"filename,label\nx.jpg,{'a' * 200_000}\n", "val.csv: cannot be read as comma-separated"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_class_split(tables(tmp_path, {**TABLES, name: text}))


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=re.escape("nowhere: there is no such file; give a JSON file with")):
        read_class_split(tmp_path / "nowhere")
    with pytest.raises(InputError, match=re.escape("lacks train.csv or test.csv; put both there")):
        read_class_split(tmp_path)
    (tmp_path / "split.json").write_bytes(b"{")
    with pytest.raises(InputError, match=re.escape("split.json: cannot be read as JSON")):
        read_class_split(tmp_path / "split.json")
    tables(tmp_path, TABLES)
    (tmp_path / "test.csv").write_bytes(b"filename,label\nc.jpg,\xff\n")
    with pytest.raises(InputError, match=re.escape("test.csv: cannot be read as comma-separated UTF-8")):
        read_class_split(tmp_path)
    monkeypatch.setattr(class_splits, "MOST_BYTES", 20)
    with pytest.raises(InputError, match=re.escape("train.csv: has 54 bytes, more than the 20")):
        read_class_split(tmp_path)


def test_ids_of_the_classes_of_a_dataset() -> None:
    names = ("stork", "gull", "egret", "heron", "ibis", "crane")
    found = SPLIT.ids_in(names, "birds")
    assert [ids.tolist() for ids in found] == [[0, 3], [4], [2, 5]]
    assert all(ids.dtype == "int64" for ids in found)


def test_a_class_that_the_dataset_lacks_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        SPLIT.ids_in(("Herons", "stork", "crane", "egret"), "birds")
    message = str(caught.value)
    assert "birds has no class `heron`, `ibis`; nearest to `heron` are `Herons`" in message
    with pytest.raises(InputError, match=re.escape("it has 2 classes: 0, 1")):
        SPLIT.ids_in(("0", "1"), "digits")


def test_a_source_is_divided_into_a_dataset_for_each_part(dataset: Path, tmp_path: Path) -> None:
    split = read_class_split(json_file(tmp_path, OF_SET))
    source = divide_source(read_source(dataset), split)
    found = {name: each.class_names for name, each in source.datasets.items()}
    assert found == {
        "SET-train": ("class 1", "class 3", "class 6"),
        "SET-val": ("class 0", "class 4"),
        "SET-test": ("class 2", "class 5"),
    }
    assert all(f"_{each.class_names[label][-1]:0>3}_" in each.files[row].name
               for each in source.datasets.values() for row, label in enumerate(each.labels))  # fmt: skip
    assert source.notes[-2:] == (
        f"class split {split.digest}: 3 classes for meta-train, 2 classes for meta-valid, 2 classes for meta-test",
        "1 class in no part of the class split, left out: `class 7`",
    )
    to_fit = divide_source(read_source(dataset), split, (TRAIN, VALID))
    assert list(to_fit.datasets) == ["SET-train", "SET-val"]
    assert "2 classes of meta-test left out: not used here" in to_fit.notes


def test_only_one_dataset_is_divided(dataset: Path, tmp_path: Path) -> None:
    split = read_class_split(json_file(tmp_path, OF_SET))
    write_meta_album(dataset.parent / "OTHER", [2] * 4)
    with pytest.raises(
        InputError, match=re.escape("2 datasets here (OTHER, SET), and a class split is for one")
    ):
        divide_source(read_source(dataset.parent), split)
    divided = divide_source(read_source(dataset), split)
    with pytest.raises(InputError, match=r"3 datasets here .* which its folders divide already"):
        divide_source(divided, split)
    lacking = ClassSplit(("class 1",), (), ("class 9",))
    with pytest.raises(InputError, match=r"SET has no class `class 9`; nearest to `class 9` are `class \d`"):
        divide_source(read_source(dataset), lacking)


def test_classes_for_validation_are_never_learned_from(dataset: Path, tmp_path: Path) -> None:
    asked = IngestionSettings(
        input_data_dir=dataset,
        submission=dataset,
        output_dir=tmp_path,
        class_split=json_file(tmp_path, OF_SET),
    )
    assert asked.class_split is not None
    split = read_class_split(asked.class_split)
    for validates, learned, held in ((1, ["SET-train"], ["SET-val"]), (0, ["SET-train"], [])):
        config = SubmissionConfig(validation_datasets=validates)
        source = _find_source(asked, config, None, split)
        drawn = split_source(source, TaskConfig(query_images_per_class=2), seed=0)
        train, valid = _validation(drawn, config, 0, lambda event: None)
        assert [part.name for part in train] == learned and [part.name for part in valid] == held
    few = write_meta_album(tmp_path / "few" / "SET", [9, 2, 9, 2, 9, 9, 2])
    source = divide_source(read_source(few), split)
    with pytest.raises(
        InputError, match="too few classes or images for a run"
    ):  # none is left for meta-train
        split_source(source, TaskConfig(query_images_per_class=4), seed=0)


@pytest.mark.medium
def test_a_run_keeps_to_the_split_and_records_it(
    runner: Runner, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    file = json_file(tmp_path, OF_SET)
    bundle = make_bundle(meta_fit=SAY_CLASSES)
    (bundle / "config.json").write_text(json.dumps({"validation_datasets": 1}))
    assert not runner(bundle, class_split=file).failures
    said = runner.texts("line")
    assert "learns from SET-train 3 classes" in said and "validates on SET-val" in said
    assert runner.truth()["datasets"] == ["SET-test"]
    assert {task["ways"] for task in runner.truth()["tasks"]} == {2}
    record: dict[str, Any] = json.loads((runner.output / "ingestion.json").read_text())
    digest = read_class_split(file).digest
    counts = {"meta-train": 3, "meta-valid": 2, "meta-test": 2}
    assert record["class_split"] == {"file": "split.json", "digest": digest, "classes": counts}
    assert json.loads((runner.output / "run.json").read_text())["class_split"] == digest
    assert f"class split: {digest}" in (runner.output / "logs" / "experimental_settings.txt").read_text()
