"""Runs the stages of `nlijob.stages` in order and skips those that are complete.

A stage is complete when its marker carries the present fingerprint (see `nlijob.fingerprints`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlijob import records
from nlijob.accelerate_file import fsdp_settings
from nlijob.analysis.columns import check_columns
from nlijob.analysis.wording import clock, count, listed, percent, plural
from nlijob.arrange import arrange, training_markers
from nlijob.attempt import Attempt, Moment, drop_torn_line
from nlijob.completeness import is_complete, why_again
from nlijob.config import JobConfig, without_machine
from nlijob.console import Console
from nlijob.data.elsewhere import elsewhere_stamp, read_elsewhere, said_of
from nlijob.data.labels import TWO_WAY
from nlijob.data.sources import source_stamp
from nlijob.data.splits import Opened, open_splits, takes_labels_of_data, with_labels_of
from nlijob.data.subset import build_subset
from nlijob.errors import GateError
from nlijob.files import remove
from nlijob.fingerprints import stage_inputs
from nlijob.hardware import Sampler
from nlijob.host_link import LeadLink
from nlijob.hub import MODEL_FILES, Hub, folder_stamp, model_files
from nlijob.launch import GpuSide
from nlijob.planning.processes import chosen_processes
from nlijob.processes import processes_of
from nlijob.records.job import (
    FORMAT_VERSION,
    SPLITS,
    Inputs,
    Manifest,
    Progress,
    RunRecord,
    SplitManifest,
    WorkerTask,
)
from nlijob.records.outcome import Results
from nlijob.records.planning import PlannedProcesses
from nlijob.records.search import Winner
from nlijob.remaining import remaining_work
from nlijob.rundir import RunDir, candidate_marker, moment, write_record
from nlijob.stages import SEARCH, TRIAL_STAGES
from nlijob.sweep import candidate_name, is_of_search, resolved
from nlijob.terminal import Style
from nlijob.tracking.side import Tracking
from nlijob.trials import stages_of, steps_of, trials_of


@dataclass
class Job:
    """One attempt at a run."""

    run: RunDir
    record: RunRecord
    hub: Hub
    console: Console
    replace: bool = False
    """Whether to lose a finished run of other settings in the folder, instead of keeping it."""
    started: Moment = field(default_factory=Moment.now)
    link: LeadLink | None = None
    """The connection to the other hosts that work on the job."""
    attempt: Attempt = field(init=False)
    model_dir: Path = field(init=False)
    model_stamp: str = field(init=False)
    inputs: dict[str, Inputs] = field(init=False)
    """Stage -> what it is made from in this attempt."""
    stamps: dict[str, str] = field(init=False)
    """What identifies the files outside the run; see `Stage.stamp`."""

    tracking: Tracking = field(init=False)
    processes: PlannedProcesses = field(init=False)
    """Those of the GPU side."""
    is_searched: bool = field(init=False, default=False)
    """Whether the configuration has the settings that the run's search has found."""

    def __post_init__(self) -> None:
        self.attempt = Attempt(self.run, self.started)
        self.tracking = Tracking(self.run, self.config.report.track, self.console.warn)

    @property
    def config(self) -> JobConfig:
        """The configuration of the run."""
        return self.record.config

    def work(self) -> Results:
        """Run the stages that are not complete and return the outcome.

        Raises JobError where a stage cannot be done.
        """
        self.processes = self._plan_processes()
        gpu_side = GpuSide(
            self.run,
            self.config.model.device,
            self.console.detail,
            processes=self.processes.number,
            link=self.link,
            fsdp=fsdp_settings(self.config.machine, None if self.link else self.processes.number),
            trusts_code=self.config.model.trust_remote_code,
        )
        with self.tracking, self.attempt.whole(), gpu_side:
            if self._needs_gpu_side():  # starting it takes longer than what precedes its work
                self.attempt.begin()
                self.hub.check_local(self.config.model)
                gpu_side.start()
            self._find_model()
            steps = [step.key for step in steps_of(self.config)]
            if all(map(self._is_complete, steps)) and self.tracking.is_complete:
                if not self._is_recorded():  # another job may have begun and stopped
                    write_record(self.run.config, continued(self.record, self.run))
                self._skip(self._stages)
            elif all(map(self._is_complete, steps[:-1])):
                self._render_again()
            else:
                self._work(gpu_side)
        results = records.read(Results, self.run.results)
        self._say_outcome(results)
        return results

    def _work(self, gpu_side: GpuSide) -> None:
        self._begin()
        self.attempt.fetched()
        interval_s = self.config.report.sample_interval_s
        number = self.attempt.number
        with Sampler(self.run.hardware, number, interval_s, self.run.root, "subset") as sampler:
            self._build_subset(sampler)
            self._check_columns()
            self._read_elsewhere(sampler)
            self.tracking.start()
            self._run_gpu_stages(gpu_side, sampler)
        self.attempt.end()
        self.tracking.warn_of_faults()
        with self.attempt.timed("report"):
            self._render()
        self._finish_tracking()

    def _render_again(self) -> None:
        """Write the report of complete work; this is no attempt and takes no time of the job."""
        self._skip(self._stages[:-1])
        self._say_why_again()
        write_record(self.run.config, continued(self.record, self.run))
        self.tracking.start()
        self._render()
        self._finish_tracking()

    def _finish_tracking(self) -> None:
        """Send outcome and page; where that fails, the page is written again, which tells of it."""
        if trackers := self.tracking.at_work:
            self.console.line(f"      sending outcome and page to {trackers}")
        if self.tracking.finish():
            self._render()

    # ------------------------------------------------------------ stages

    @property
    def _stages(self) -> list[str]:
        """The names of the job's stages, in order."""
        return [stage.name for stage in stages_of(self.config)]

    @property
    def _gpu_steps(self) -> list[str]:
        """All that the GPU side does, by `Step.key`."""
        return [step.key for step in steps_of(self.config) if step.stage.side == "gpu"]

    def _plan_processes(self) -> PlannedProcesses:
        """How many processes the GPU side has; raises ConfigurationError if too many are wanted."""
        processes_of(self.config)
        return chosen_processes(self.config, self.run)

    def _needs_gpu_side(self) -> bool:
        """Whether a GPU stage has no marker and so has to run, whatever its inputs are."""
        return not all(self.run.marker(key).exists() for key in self._gpu_steps)

    def _find_model(self) -> None:
        self.model_dir = self.hub.model_folder(self.config.model)
        self.model_stamp = model_stamp(self.model_dir, model_files(self.config.model))
        self.stamps = {
            "data": source_stamp(self.config.data),
            "model": self.model_stamp,
            "elsewhere": elsewhere_stamp(self.config),
        }
        self.inputs = stage_inputs(self.config, self.stamps)
        for names in TWO_WAY:
            self._adopt_earlier_labels(names)
        self._adopt_winner()
        if not self._starts_over():
            arrange(self.run, trials_of(self.config), self.inputs)

    def _adopt_earlier_labels(self, names: tuple[str, ...]) -> None:
        """Name the labels as an earlier attempt did, if its subset is of the same inputs."""
        data = self.config.data
        marker = self.run.read_marker("subset")
        if marker is None or not takes_labels_of_data(data):
            return
        config = dataclasses.replace(self.config, data=dataclasses.replace(data, label_names=names))
        inputs = stage_inputs(config, self.stamps)
        if marker.fingerprint == inputs["subset"].fingerprint:
            self.record, self.inputs = dataclasses.replace(self.record, config=config), inputs

    def _adopt_winner(self) -> None:
        """Take on the settings that the run's search has found, if it is of the present inputs."""
        marker = self.run.read_marker(SEARCH) if SEARCH in self.inputs else None
        if marker is None or marker.fingerprint != self.inputs[SEARCH].fingerprint:
            return
        with contextlib.suppress(OSError, ValueError):  # a damaged record: the search is repeated
            config = resolved(self.config, records.read(Winner, self.run.winner))
            self.record = dataclasses.replace(self.record, config=config)
            self.inputs = stage_inputs(config, self.stamps)
            self.is_searched = True

    def _adopt_labels(self, opened: Opened) -> None:
        """Name the labels as the data do. Raises ConfigurationError if the prompt does not fit."""
        config = with_labels_of(self.config, opened)
        if config == self.config:
            return
        names = listed(config.data.label_names)
        self.console.line(f"      the labels of the data are {names}")
        self.record = dataclasses.replace(self.record, config=config)
        self.inputs = stage_inputs(config, self.stamps)
        write_record(self.run.config, continued(self.record, self.run))

    def _begin(self) -> None:
        self._say_why_again()
        starts_over = self._starts_over()
        if starts_over and self._is_finished():
            self._keep_finished_run()
        for log in (self.run.timings, self.run.hardware, self.run.machines):
            if starts_over:  # other inputs: their time is not this run's cost
                remove(log)
            drop_torn_line(log)
        if starts_over:
            self.attempt.begin_afresh()
            remove(self.run.tracking)  # what trackers know is of other settings
        self.attempt.begin()
        write_record(self.run.config, continued(self.record, self.run))

    def _say_why_again(self) -> None:
        for step in steps_of(self.config):
            if reason := why_again(self.run, step.key, self.inputs):
                of = f"{step.trial.name}: " if step.trial and step.trial.folder else ""
                self._say(step.stage.name, f"{of}done again: {reason}")

    def _starts_over(self) -> bool:
        """Whether the folder holds rows, scores or models made from other inputs.

        Trainings that differ in their seed alone belong to the same run. Other test sets beside the
        run's own start nothing over: what is there goes on with them.
        """
        first = [step for step in steps_of(self.config) if step.stage.stamp and not step.trial]
        return self._has_other_trainings() or any(
            self._is_of_other_inputs(step.key) for step in first if step.key != "elsewhere"
        )

    def _has_other_trainings(self) -> bool:
        folders = {self.run.at(key)[0].trial for key in self.run.marked()}
        there = [one for folder in folders for one in training_markers(self.run.view(folder))]
        if SEARCH in self.inputs and not self.is_searched:
            return bool(there) and not self._is_own_search()
        trial, *_ = trials_of(self.config)
        now = without_seed(self.inputs[trial.key("train")])
        return any(without_seed(marker.inputs) != now for marker in there)

    def _is_own_search(self) -> bool:
        """Whether the folder holds a search of the present inputs, complete or not."""
        marker = self.run.read_marker(SEARCH)
        if marker and marker.fingerprint == self.inputs[SEARCH].fingerprint:
            return True
        first = self.run.read_marker(candidate_marker(candidate_name(1)))
        return bool(first and is_of_search(first.inputs, self.config, self.stamps))

    def _is_of_other_inputs(self, stage: str) -> bool:
        """Whether a stage was done with other inputs, but for what is read elsewhere."""
        marker = self.run.read_marker(stage)
        if marker is None:
            return False
        if marker.inputs is None or marker.format_version != FORMAT_VERSION:
            return True
        return but_elsewhere(marker.inputs) != but_elsewhere(self.inputs[stage])

    def _is_finished(self) -> bool:
        """Whether the folder holds a finished run, of whatever settings and version."""
        files = (self.run.results, *map(self.run.marker, ("subset", "baseline", "report")))
        return all(file.is_file() for file in files)

    def _keep_finished_run(self) -> None:
        """Set aside a finished run that this one would replace, unless it may be lost."""
        root = self.run.root
        if self.replace:
            self.console.warn(f"Note: this replaces the finished run of other settings in {root}")
            return
        replaces = self.run.previous.exists()
        previous = self.run.set_aside()
        self._take_over(RunDir(previous))
        instead = "; the run that was kept there before is deleted" if replaces else ""
        self.console.warn(
            f"Note: {root} held a finished run of other settings; it is kept as {previous}{instead}"
        )

    def _take_over(self, previous: RunDir) -> None:
        """Copy the rows and base scores of a run that was set aside, where they stay the same."""
        for stage in ("subset", "elsewhere", "baseline"):
            marker = previous.read_marker(stage)
            if marker is None or not is_complete(previous, stage, self.inputs):
                return
            for name in (*marker.files, previous.name(previous.marker(stage))):
                target = self.run.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(previous.root / name, target)

    def _is_recorded(self) -> bool:
        """Whether config.json holds this configuration, for whatever machine."""
        try:
            recorded = records.read(RunRecord, self.run.config).config
        except (OSError, ValueError):
            return False
        return without_machine(recorded) == without_machine(self.config)

    def _build_subset(self, sampler: Sampler) -> None:
        sampler.stage = "subset"
        if self._is_complete("subset"):
            self._skip(["subset"])
            return
        self.run.unmark("subset")
        started = Moment.now()
        with self.attempt.timed("subset"):
            opened = open_splits(self.config.data, self.hub)
            self._adopt_labels(opened)
            manifest = build_subset(self.config.data, self.run, self.hub, opened)
            self._mark_complete("subset", [self.run.manifest, *map(self.run.subset, SPLITS)])
        self._say("subset", f"{_rows_text(manifest)}; {clock(started.age_s())}")
        for split in manifest.splits.values():
            if split.origin:
                self.console.line(f"      {split.split}: {split.origin}")

    def _check_columns(self) -> None:
        """Raise ConfigurationError if the report is to slice by a column that is not there."""
        if wanted := self.config.report.slice_columns:
            test = records.read(Manifest, self.run.manifest).splits["test"]
            check_columns(wanted, test.further_columns)

    def _read_elsewhere(self, sampler: Sampler) -> None:
        sampler.stage = "elsewhere"
        if self._is_complete("elsewhere"):
            self._skip(["elsewhere"])
            return
        self.run.unmark("elsewhere")
        with self.attempt.timed("elsewhere"):
            found, files = read_elsewhere(self.config, self.run, self.hub)
            self._mark_complete("elsewhere", files)
        self._say("elsewhere", said_of(found))

    def _run_gpu_stages(self, gpu_side: GpuSide, sampler: Sampler) -> None:
        if all(map(self._is_complete, self._gpu_steps)):
            gpu_stages = [one.name for one in stages_of(self.config) if one.side == "gpu"]
            self._skip(gpu_stages)
            return

        at_work = StageAtWork()
        missing = [key for key in self._gpu_steps if not self._is_complete(key)]
        remaining = remaining_work(self.run, self.config, missing)

        def show(progress: Progress) -> None:
            sampler.stage = at_work.after(progress)
            if self.link:
                self.link.stage = progress.stage
            if progress.unit:
                self.console.progress(progress, remaining.after(progress) if remaining else None)
            else:
                self._say(progress.stage, progress.note)
                self.tracking.warn_of_faults()

        sampler.stage = "start"
        self.console.line(
            f"      starting the GPU side (accelerate launch){self._said_of_processes()}"
        )
        gpu_side.start()
        given = Moment.now()
        gpu_side.give(
            WorkerTask(
                attempt=self.attempt.number,
                launched_at_s=gpu_side.launched.wall_s,
                given_at_s=given.wall_s,
                model_dir=str(self.model_dir.absolute()),
                model_stamp=self.model_stamp,
                inputs=self.inputs,
                launched_monotonic_s=gpu_side.launched.monotonic_s,
                given_monotonic_s=given.monotonic_s,
                stamps=self.stamps,
                processes_reason=self._why_processes(),
            )
        )
        importlib.import_module("nlijob.report.render")  # imported now, while the GPU side is busy
        gpu_side.follow(show)
        self._adopt_winner()

    def _why_processes(self) -> str:
        """Why there are so many processes; "" where there could be no more than one."""
        planned = self.processes
        return planned.reason if max(planned.number, planned.visible) > 1 else ""

    def _said_of_processes(self) -> str:
        """How many GPUs are in use, or processes on a CPU, where it could be several."""
        planned, why = self.processes, self._why_processes()
        gpus = f" on {planned.number} of {planned.visible} GPUs: {why}"
        processes = f", {planned.number} processes: {why}"
        return (gpus if planned.visible else processes) if why else ""

    def _render(self) -> None:
        from nlijob.report.render import render

        started = Moment.now()
        render(self.run)
        self._say("report", clock(started.age_s()))

    # ------------------------------------------------------------ markers

    def _is_complete(self, stage: str) -> bool:
        return is_complete(self.run, stage, self.inputs)

    def _mark_complete(self, stage: str, outputs: Iterable[Path]) -> None:
        self.run.mark_complete(stage, self.inputs[stage], outputs)

    def _skip(self, stages: Iterable[str]) -> None:
        for stage in stages:
            self._say(stage, "complete, skipped")

    # ------------------------------------------------------------ console

    def _say(self, stage: str, text: str) -> None:
        stages = self._stages
        if stage in stages:
            self.console.stage(stages.index(stage) + 1, len(stages), stage, text)
        else:
            self.console.line(f"      {text}")

    def _say_outcome(self, results: Results) -> None:
        from nlijob.closing import verdict_of

        base, tuned = results.base, results.tuned
        verdict = verdict_of(results)
        self.console.line("")
        self.console.line(verdict.text, verdict.style)
        epoch = f"epoch {results.selection.epoch} of {self.config.train.epochs} selected"
        if trials := results.trials:
            spread = trials.accuracy
            self.console.result(
                f"Test accuracy {percent(base.accuracy)} -> {percent(spread.mean)}, the mean of "
                f"{plural(len(trials.trials), 'training')} ({percent(spread.lowest)} to "
                f"{percent(spread.highest)} of {plural(tuned.rows, 'row')}); kept: {trials.kept}, "
                f"{epoch}"
            )
        else:
            self.console.result(
                f"Test accuracy {percent(base.accuracy)} -> {percent(tuned.accuracy)} "
                f"({count(base.correct)} -> {count(tuned.correct)} of "
                f"{plural(tuned.rows, 'row')}), {epoch}"
            )
        for warning in results.warnings:
            self.console.result(f"Note: {warning.text}")
        self._say_next(results)
        self.console.result(f"Report: {self.run.report}")

    def _say_next(self, results: Results) -> None:
        """Propose what to do with the outcome; each command stands on a line of its own."""
        from nlijob.closing import next_steps, own_program

        self.console.line("")
        self.console.line("What you can do next:", Style.BOLD)
        for step in next_steps(results, self.run.root, own_program()):
            self.console.line(f"  {step.purpose}:")
            self.console.line(f"    {step.command}")
        self.console.line("")


class StageAtWork:
    """The stage that a job is in, also where its processes are in several.

    Of trainings side by side it is the earliest stage of one that is at work.
    """

    def __init__(self) -> None:
        self._of: dict[int, str] = {}

    def after(self, progress: Progress) -> str:
        """The stage as of this progress."""
        if progress.stage not in TRIAL_STAGES:
            self._of.clear()  # the trainings are over, or have not begun
            return progress.stage
        self._of[progress.process] = progress.stage
        return min(self._of.values(), key=TRIAL_STAGES.index)


def check_gates(results: Results) -> None:
    """Raise GateError where the outcome misses a gate of the configuration."""
    if not results.gates.passed:
        missed = "; ".join(failure.text for failure in results.gates.failures)
        raise GateError(missed, "the report is complete")


def but_elsewhere(inputs: Inputs) -> Inputs:
    """The inputs of a stage without what it reads beside the run's own rows."""
    follows = {name: print_ for name, print_ in inputs.follows.items() if name != "elsewhere"}
    return dataclasses.replace(inputs, follows=follows)


def without_seed(inputs: Inputs | None) -> Inputs | None:
    """The inputs of a training but for its seed; None for a marker of another version."""
    if inputs is None:
        return None
    settings = {key: value for key, value in inputs.settings.items() if key != "train.seed"}
    return dataclasses.replace(inputs, settings=settings)


def model_stamp(model_dir: Path, files: Sequence[str] = MODEL_FILES) -> str:
    """Identity of a model: the commit of a hub snapshot, or names and hashes of local files.

    `files`: patterns of the files that count.
    """
    in_hub_cache = model_dir.parent.name == "snapshots"
    return model_dir.name if in_hub_cache else folder_stamp(model_dir, files)


def continued(record: RunRecord, run: RunDir) -> RunRecord:
    """The run's record; a resumed run keeps the time of its first attempt, if it can be read.

    It may be resumed on another machine.
    """
    config = without_machine(record.config)
    for earlier in _earlier_records(run):
        if without_machine(earlier.config) == config and moment(earlier.created_at):
            return dataclasses.replace(record, created_at=earlier.created_at)
    return record


def _earlier_records(run: RunDir) -> Iterator[RunRecord]:
    """What earlier attempts wrote about the run, as far as it can be read."""
    with contextlib.suppress(OSError, ValueError):
        yield records.read(RunRecord, run.config)
    with contextlib.suppress(OSError, ValueError):
        yield records.read(Results, run.results).run


def _rows_text(manifest: Manifest) -> str:
    splits: Sequence[SplitManifest] = list(manifest.splits.values())
    rows = ", ".join(f"{split.rows:,} {split.split}" for split in splits)
    dropped = sum(split.unlabelled_dropped for split in splits)
    return f"{rows} rows" + (f"; {dropped:,} unlabelled dropped" if dropped else "")
