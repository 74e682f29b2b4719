"""The notebook, run without a browser as somebody runs it who opens it for the first time."""

import ast
import json
import re
from pathlib import Path

import pytest

import heed
from heed.notebook import written
from world.small_world import ROOT

NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_the_notebook_is_ten_cells_kept_without_what_they_gave() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) == 10
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)
    ast.parse("\n".join("".join(cell["source"]) for cell in code))


def test_keys_in_pythons_values_are_what_one_would_type() -> None:
    keys = {"data": Path("my.csv"), "fp16": False, "split_shares": [0.8, 0.1, 0.1], "limit": None, "prompt": "question"}
    assert written("a.yaml", keys) == [
        *("--config=a.yaml", "--data=my.csv", "--fp16=false", "--split_shares=[0.8, 0.1, 0.1]"),
        *("--limit=null", "--prompt=question"),
    ]
    with pytest.raises(AttributeError, match="module 'heed' has no attribute 'trian'"):
        getattr(heed, "trian")  # noqa: B009 - mypy knows it too


@pytest.mark.slow
def test_the_notebook_goes_from_rows_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="make notebook-setup installs nbclient")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert re.search(r"^base   0\.0.*, n = 60$", printed, re.M) and re.search(
        r"^tuned  0\.[89].*, n = 60$", printed, re.M
    )
    assert "cold" in str(outputs)
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
