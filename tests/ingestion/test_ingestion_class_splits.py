"""Class-level split files: both forms, and what is wrong with them in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ingestion import InputError, class_splits
from ingestion.class_splits import ClassSplit, read_class_split

SPLIT = ClassSplit(("heron", "stork"), ("ibis",), ("crane", "egret"))
AS_JSON = {"meta-train": ["heron", "stork"], "meta-valid": ["ibis"], "meta-test": ["crane", "egret"]}
TABLES = {
    "train.csv": "filename,label\nh1.jpg,heron\ns1.jpg,stork\nh2.jpg,heron\n",
    "val.csv": "filename,label\ni1.jpg,ibis\n",
    "test.csv": "filename,label\nc1.jpg,crane\n\ne1.jpg,egret\n",
}


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
