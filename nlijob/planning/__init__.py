"""What a job would do, and whether this machine can do it: behind `plan` and `doctor`.

Nothing here does a part of the job. What needs the GPU side's libraries runs in a child process
(`nlijob.gpu.look`, `nlijob.gpu.trial`), which has a time limit.
"""
