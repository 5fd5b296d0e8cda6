"""The fast way through the model: packed rows, adapters of one buffer, steps as CUDA graphs.

It serves decoders with LoRA on linear layers and computes what the plain way computes; what it
does not serve raises `NotServed`, and the plain way does it.
"""
