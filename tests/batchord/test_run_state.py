"""The state of a run on disk: kept while something may be paid for, private, and one at a time."""

import io
import stat
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batchord import Batch, Client, SubmitRefused
from batchord.commands.durable_run import Again, begun
from batchord.ledger.core.private_files import PrivateFolderError
from batchord.local.run_state import RunBusy, RunRecord, RunState, discard, discard_old, unfinished


def record(**changes: Any) -> RunRecord:
    known = {"id": "run_1", "chain": "c", "input": "in.csv", "output": "out.csv"}
    return RunRecord.model_validate({**known, "own_server": True, **changes})


def test_a_run_is_carried_out_by_one_process_at_a_time(tmp_path: Path) -> None:
    with RunState(tmp_path / "home", record()) as state:
        state.save(batch_id="batch_1")
        with pytest.raises(RunBusy, match="under way in another process"):
            RunState(tmp_path / "home", record()).__enter__()
        with pytest.raises(RunBusy):
            discard(tmp_path / "home", "run_1")
    with RunState(tmp_path / "home", record()) as again:
        assert (again.resumed, again.record.batch_id) == (True, "batch_1")
        assert again.record.key == state.record.key
    assert [run.id for run in unfinished(tmp_path / "home")] == ["run_1"]


def test_a_run_that_has_submitted_nothing_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"

    with RunState(home, record()) as state:
        state.save(own_server=False)

    assert not home.exists()


@pytest.mark.parametrize(("error", "kept"), [(KeyboardInterrupt, True), (SubmitRefused, False)])
def test_an_interrupted_submission_is_kept_and_a_refused_one_is_not(
    tmp_path: Path, error: type[BaseException], kept: bool
) -> None:
    def submit(client: Client, key: str) -> Batch:
        raise error("in the middle")

    again = Again(retry_failed=False, only_new=False, fresh=False)
    out = Console(file=io.StringIO())
    with (
        pytest.raises((SystemExit, SubmitRefused)),
        RunState(tmp_path / "home", record()) as state,
    ):
        begun(Client("redis://127.0.0.1:1/0"), state, submit, None, again, out)

    assert [run.key for run in unfinished(tmp_path / "home")] == [state.record.key] * kept


def test_runs_that_ended_long_ago_are_dropped(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name, status in (("run_1", "completed"), ("run_2", None)):
        with RunState(home, record(id=name)) as state:
            state.save(batch_id="batch_1", status=status)

    discard_old(home, 3600)
    assert len(unfinished(home)) == 2
    discard_old(home, -1)
    assert [run.id for run in unfinished(home)] == ["run_2"]


def test_a_folder_of_another_is_refused_and_one_of_ours_is_private(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PrivateFolderError, match="is a link"):
        RunState(tmp_path / "home", record()).__enter__()

    with RunState(tmp_path / "elsewhere", record()) as state:
        state.save(batch_id="batch_1")
        paths = [tmp_path / "elsewhere", *(tmp_path / "elsewhere").rglob("*")]
        modes = {stat.S_IMODE(path.stat().st_mode) for path in paths}
        assert modes == {0o700, 0o600}
