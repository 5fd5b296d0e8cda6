"""From the outcome of a run to what the page says: every text formatted, nothing left to compute.

The templates only print what stands here. A module is one section; `page` is their list.
"""
