"""Pure functions over records: figures, statistics, selection, cases, outcome. No torch."""
