"""Tells trackers such as TensorBoard or MLflow about a run, through accelerate's own classes.

A tracker has a process of its own, because accelerate imports torch, and because a service that
hangs must not hold up the job. The process reads the run's records; the job knows nothing of it.
"""
