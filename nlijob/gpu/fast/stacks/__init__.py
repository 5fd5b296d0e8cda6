"""Fused layers, a file per architecture; `nlijob.gpu.fast.served` lists them."""
