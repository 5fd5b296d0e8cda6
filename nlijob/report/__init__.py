"""Turns the records of a run into one HTML page; the templates only print the view model."""
