"""The faster execution modes: packed rows, the adapter in one buffer, steps as CUDA graphs.

They support decoders with LoRA on linear layers and compute what the plain loop computes. Anything
else raises `Unsupported`, and the plain loop is used instead.
"""
