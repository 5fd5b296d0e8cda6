"""What to do with a finished run: label rows with its adapter, and export and publish it."""
