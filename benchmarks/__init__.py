"""Our server and others, measured side by side in one run."""
