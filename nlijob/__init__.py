"""nlijob: one batch job from a base LLM and an NLI data set to one HTML report."""

__version__ = "0.2.0"
