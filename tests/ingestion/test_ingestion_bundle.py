"""Bundles: folders, zips, and their config.json."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import pytest

from ingestion.bundle import open_bundle, read_config
from ingestion.errors import InputError
from ingestion.model_file import check_model


def zipped(file: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(file, "w") as bundle:
        for name, text in members.items():
            bundle.writestr(name, text)
    return file


def test_a_zip_is_unpacked_into_the_scratch_folder(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {"model.py": "x = 1", "sub/helper.py": ""})
    folder = open_bundle(archive, tmp_path / "scratch")
    assert (folder / "sub" / "helper.py").is_file()


def test_unpacking_ends_with_the_time_budget(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {"model.py": "x = 1", "weights.bin": "2"})
    with pytest.raises(InputError, match=r"b\.zip: takes all of the time budget to unpack; leave files out"):
        open_bundle(archive, tmp_path / "scratch", deadline=time.monotonic())


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py"])
def test_members_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "b.zip", {"model.py": "", name: ""})
    with pytest.raises(InputError, match="leaves the bundle"):
        open_bundle(archive, tmp_path / "scratch")
    assert not list(tmp_path.rglob("evil.py"))


def test_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as bundle:
        link = zipfile.ZipInfo("model.py")
        link.external_attr = 0o120777 << 16
        bundle.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        open_bundle(tmp_path / "b.zip", tmp_path / "scratch")


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "b.zip", {"folder/model.py": ""})
    with pytest.raises(InputError, match="zip the files, not their folder"):
        open_bundle(archive, tmp_path / "scratch")
    (tmp_path / "junk.zip").write_text("junk")
    with pytest.raises(InputError, match="not a readable zip"):
        open_bundle(tmp_path / "junk.zip", tmp_path / "scratch")


def test_config_is_merged_over_the_defaults(tmp_path: Path) -> None:
    content = {"validation_datasets": None, "train_config": {"k": 3}, "unknown": 1}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = read_config(tmp_path)
    assert (config.train_config.N, config.train_config.k) == (5, 3)
    assert config.validation_datasets == 0
    assert config.data_format == "task"
    assert config.valid_config.max_N == 20


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"validation_datasets": 10}, "validation_datasets"),
        ({"train_config": {"N": "five"}}, "train_config.N"),
        ({"train_config": {"N": None}}, "min_N"),
        ({"valid_config": {"query_images_per_class": 21}}, "valid_config"),
    ],
)
def test_bad_config_names_the_key(tmp_path: Path, content: object, named: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=named):
        read_config(tmp_path)


LACKING = """
from api import Learner, MetaLearner

class MyMetaLearner(MetaLearner):
    def metafit(self, train, valid):
        return MyLearner()

class MyLearner(Learner):
    def fit(self, support): ...
    def save(self, path): ...
    def load(self, path): ...
"""


def test_a_method_that_is_certainly_lacking_is_named_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(LACKING)
    with pytest.raises(InputError, match=r"model\.py, line 4: MyMetaLearner lacks the method meta_fit"):
        check_model(tmp_path)
    for changed in (
        LACKING.replace("(MetaLearner)", "(Mixin, MetaLearner)"),
        LACKING.replace("from api", "from mine"),
        LACKING.replace("    def metafit", "    meta_fit = take\n    def metafit"),
        LACKING.replace("metafit", "meta_fit"),
    ):
        (tmp_path / "model.py").write_text(changed)
        check_model(tmp_path)
    (tmp_path / "model.py").write_text(LACKING)
    (tmp_path / "api.py").touch()
    check_model(tmp_path)


def test_a_predictor_may_be_abstract_and_methods_may_be_given_in_any_way(tmp_path: Path) -> None:
    text = (
        LACKING.replace("metafit", "meta_fit")
        + """
class MyPredictor(Predictor):
    def norm(self): ...

class Nearest(MyPredictor):
    def predict(self, query_set): ...
"""
    )
    (tmp_path / "model.py").write_text(text.replace("import Learner", "import Learner, Predictor"))
    check_model(tmp_path)
    (tmp_path / "model.py").write_text(
        LACKING.replace("    def metafit", "    meta_fit: object = None\n\n    def other")
    )
    check_model(tmp_path)
