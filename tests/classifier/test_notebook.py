"""The notebook runs from top to bottom and says what it should."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples/few_shot_classifier.ipynb"


def test_it_is_kept_without_output() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if "outputs" in cell)


@pytest.mark.medium
@pytest.mark.filterwarnings("default")  # those of Jupyter
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat  # noqa: PLC0415 - not where only the fast tests are run
    from nbclient import NotebookClient  # noqa: PLC0415

    kernel = tmp_path / "kernels" / "ours"  # whatever kernels there are besides
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "ours"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    metadata = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=300, kernel_name="ours", resources=metadata).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    right, found = map(int, re.findall(r"(\d+)% of \d+ new images", printed))
    assert right > 60 and found > 60, printed
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 3
