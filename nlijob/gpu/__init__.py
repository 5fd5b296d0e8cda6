"""The GPU side: the only package that imports the torch stack at module level."""
