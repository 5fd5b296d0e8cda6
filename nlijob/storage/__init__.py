"""A run in a bucket: sent there while the job runs, fetched from there to go on with it.

Both ways keep one rule. While a completion marker stands at the place, what it vouches for stands
there too: markers are taken away first and written last. So a copy cut off half-way is never taken
for complete, and two equal markers mean equal files.
"""
