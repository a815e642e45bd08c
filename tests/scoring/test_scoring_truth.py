"""Truth files are checked field by field, or drawn again by a process of the ingestion package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import TruthError
from scoring.truth import draw_truth, read_truth

Content = dict[str, Any]
Change = Callable[[Content], object]

MALFORMED: dict[str, tuple[Change, str]] = {
    "format": (lambda truth: truth.update(format="x"), "field format"),
    "no tasks": (lambda truth: truth.update(tasks=[]), "field tasks"),
    "no datasets": (lambda truth: truth.pop("datasets"), "field datasets"),
    "one way": (lambda truth: truth["tasks"][1].update(ways=1), "field tasks[1].ways"),
    "task nought": (lambda truth: truth["tasks"][0].update(task=0), "field tasks[0].task"),
    "task as text": (lambda truth: truth["tasks"][0].update(task="1"), "field tasks[0].task"),
    "no labels": (lambda truth: truth["tasks"][2].update(labels=[]), "field tasks[2].labels"),
    "half a label": (lambda truth: truth["tasks"][2].update(labels=[0, 0.5]), "field tasks[2].labels[1]"),
    "a label too high": (
        lambda truth: truth["tasks"][2].update(labels=[0, 2]),
        "labels[1] is 2, not in 0 … 1",
    ),
    "a task twice": (lambda truth: truth["tasks"][2].update(task=1), "tasks[2].task: task 1 appears twice"),
    "unknown dataset": (lambda truth: truth["tasks"][2].update(dataset="C"), "tasks[2].dataset: 'C'"),
    "a dataset twice": (lambda truth: truth.update(datasets=["B2", "B10", "B2"]), "appears twice"),
}


def test_a_good_file_comes_out_in_order_of_tasks(tmp_path: Path, truth_content: Content) -> None:
    reverse = truth_content | {"tasks": truth_content["tasks"][::-1], "more": "is ignored"}
    (tmp_path / "truth.json").write_text(json.dumps(reverse))
    truth = read_truth(tmp_path / "truth.json")
    assert [task.task for task in truth.tasks] == [1, 2, 3]
    assert truth.tasks[1].labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert (truth.seed, truth.datasets) == (93, ("B10", "B2"))


@pytest.mark.parametrize(("change", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_named_with_its_field(
    tmp_path: Path, truth_content: Content, change: Change, words: str
) -> None:
    change(truth_content)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth_content))
    with pytest.raises(TruthError) as caught:
        read_truth(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "[" * 100_000, '{"format": NaN}', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_what_is_no_json_object_is_an_error(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TruthError, match="malformed truth"):
        read_truth(path)


def test_a_link_is_followed_only_where_it_was_asked_for(tmp_path: Path, truth_content: Content) -> None:
    (tmp_path / "real.json").write_text(json.dumps(truth_content))
    link = tmp_path / "truth.json"
    link.symlink_to(tmp_path / "real.json")
    with pytest.raises(TruthError, match="symbolic link"):
        read_truth(link)
    assert len(read_truth(link, follow_link=True).tasks) == 3
    with pytest.raises(TruthError, match="no such file"):
        read_truth(tmp_path / "absent.json")


def _fake_ingestion(folder: Path, code: str | None) -> None:
    (folder / "ingestion").mkdir()
    (folder / "ingestion" / "__init__.py").touch()
    if code is not None:
        (folder / "ingestion" / "truth.py").write_text(code)


def test_truth_is_drawn_again_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth_content: Content
) -> None:
    _fake_ingestion(
        tmp_path,
        "import json, pathlib, sys\n"
        "flags = dict(word[2:].split('=') for word in sys.argv[1:])\n"
        f"truth = {truth_content!r} | {{'seed': int(flags['seed']) + int(flags['test_tasks_per_dataset'])}}\n"
        "assert pathlib.Path(flags['input_data_dir']).is_dir()\n"
        "pathlib.Path(flags['output']).write_text(json.dumps(truth))\n",
    )
    monkeypatch.chdir(tmp_path)
    truth = draw_truth(Path("ingestion"), 7, 100)
    assert (truth.seed, len(truth.tasks)) == (107, 3)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('half way'); raise SystemExit('no labels.csv')", "no labels.csv"),
        ("", "there is no such file"),
    ],
)
def test_failing_to_draw_shows_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str | None, words: str
) -> None:
    _fake_ingestion(tmp_path, code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TruthError, match=words):
        draw_truth(tmp_path, 93, 100)


def test_data_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TruthError, match="input_data_dir"):
        draw_truth(tmp_path / "absent", 93, 100)
