"""Turns the outcome of a run into formatted text, so that the templates have nothing to compute.

Each module builds one section or page; `page` puts the sections of a report together.
"""
