"""What a process says of an error that another process has caused."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import distributed

from nlijob.errors import ExitCode
from nlijob.gpu.group import Group
from nlijob.gpu.outcome import outcome_of
from nlijob.records.job import WorkerOutcome
from nlijob.rundir import RunDir
from tests.groups import in_group


def _left_alone(group: Group, root: Path) -> WorkerOutcome | None:
    group.gather(0)
    if group.rank == 1:
        distributed.destroy_process_group()
        return None
    with pytest.raises(RuntimeError) as caught:
        group.gather(0)
    return outcome_of(caught.value, RunDir(root))


def test_an_exchange_with_a_process_that_has_gone_is_told_as_that(tmp_path: Path) -> None:
    outcome, _ = in_group(2, _left_alone, tmp_path)
    assert outcome
    assert outcome.lost_another
    assert "cannot reach each other" in outcome.message


def test_an_error_between_gpus_may_be_the_fault_of_another_process(tmp_path: Path) -> None:
    error = distributed.DistBackendError("NCCL communicator was aborted")
    assert outcome_of(error, RunDir(tmp_path)).lost_another


def test_memory_that_runs_out_in_an_exchange_is_told_as_that(tmp_path: Path) -> None:
    error = distributed.DistBackendError("NCCL error: CUDA out of memory")
    outcome = outcome_of(error, RunDir(tmp_path))
    assert (outcome.exit_code, outcome.lost_another) == (ExitCode.HARDWARE, False)


def test_an_error_of_ones_own_is_not_blamed_on_others(tmp_path: Path) -> None:
    outcome = outcome_of(RuntimeError("shapes do not match"), RunDir(tmp_path))
    assert outcome.exit_code == ExitCode.INTERNAL
    assert not outcome.lost_another
