"""A remote copy of a run in a bucket: uploaded while the job runs, downloaded to resume it.

Upload and download keep one invariant: while a completion marker exists in the copy, every file
that it lists exists there too. Markers are therefore deleted first and written last. A partial copy
is never mistaken for a complete one, and equal markers mean equal files.
"""
