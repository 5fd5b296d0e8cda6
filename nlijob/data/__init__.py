"""The data set: where rows come from, what they mean, and which ones a run uses."""
