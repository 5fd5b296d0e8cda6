"""The GPUs of a job that used several, or its processes, and how they shared the training."""

from __future__ import annotations

from nlijob.analysis.wording import counted, plural
from nlijob.records.outcome import Results
from nlijob.report.view.parts import Fact
from nlijob.report.view.text import visible

SHARED = {
    "trials": "each with a training of its own",
    "steps": "which share each step of a training",
    "none": "of which one trains and all score",
}


def used_several(results: Results) -> bool:
    """Whether several GPUs, or processes on a CPU, worked at the same time."""
    return results.plan.processes > 1 or len(results.environment.gpus) > 1


def gpu_name(results: Results, place: int) -> str:
    """The name of a GPU by its place among all, with its host where there are several hosts."""
    host = results.resources.gpus[place].host
    return f"GPU {place}" + (f" on {visible(host)}" if host else "")


def machine_tile(results: Results) -> tuple[Fact, ...]:
    """The machine, for the first screen; nothing if the job had one GPU or one process."""
    if not used_several(results):
        return ()
    plan, environment = results.plan, results.environment
    gpus = [gpu.name for gpu in environment.gpus]
    value = counted(gpus) if gpus else f"{plan.processes} processes"
    hosts = len({gpu.host for gpu in environment.gpus})
    notes = (_how(results) if plan.processes > 1 else "", f"on {hosts} hosts" if hosts > 1 else "")
    return (Fact("machine", visible(value), "; ".join(filter(None, notes))),)


def sharing_facts(results: Results) -> tuple[Fact, ...]:
    """How many GPUs or processes there were, how they trained, and why.

    Nothing where no more than one GPU could be used.
    """
    plan = results.plan
    name = "GPUs" if results.environment.gpus else "processes"
    why = visible("; ".join(filter(None, (plan.share_reason, plan.processes_reason))))
    if plan.processes > 1:
        return (Fact(name, f"{plan.processes}, {SHARED[plan.share]}", why),)
    return (Fact(name, "1", why),) if why else ()


def most_at_once(results: Results) -> int:
    """Most trainings that were at work at the same time."""
    return max((stage.at_once for stage in results.stages), default=1)


def overlap_note(results: Results) -> str:
    """What times mean where trainings were done side by side; "" where they were not."""
    if most_at_once(results) == 1:
        return ""
    return (
        f"Up to {most_at_once(results)} trainings were at work side by side. Time in which several "
        "were in a stage counts once. Stages overlap, so that their times may add up to more than "
        "that of the job."
    )


def _how(results: Results) -> str:
    plan = results.plan
    if plan.share == "trials":
        number = min(plan.processes, len(results.trials.trials) if results.trials else 1)
        return f"{plural(number, 'training')} side by side"
    return "all share each training step" if plan.share == "steps" else "one trains, all score"
