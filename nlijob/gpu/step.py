"""Does one step of a job: a stage, once or for a training, unless it is complete."""

from __future__ import annotations

from nlijob.completeness import is_complete
from nlijob.gpu.environment import reset_peak_memory
from nlijob.gpu.session import Session
from nlijob.gpu.stages import WORK
from nlijob.stages import stages_after
from nlijob.trials import Step, stages_of


def do_step(session: Session, step: Step) -> None:
    """Do a step; its completion marker is written last."""
    session.of_trial(step.trial)
    run, stage = session.run, step.stage.name
    if is_complete(run, step.key, session.task.inputs):
        session.reporter.say(stage, "complete, skipped")
        return
    stages = stages_of(session.whole_config)
    # the later ones are of the outcome that is now replaced
    for name in (stage, *stages_after(stage, stages)):
        run.unmark(name)
    reset_peak_memory(session.device)
    session.prepare()
    with session.reporter.timed(stage):
        outputs = WORK[stage](session)
    run.mark_complete(stage, session.task.inputs[step.key], outputs)
