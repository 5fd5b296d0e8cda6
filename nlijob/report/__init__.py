"""Records of a run into one HTML page: view model first, templates only print."""
