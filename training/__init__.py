"""From labelled images to a published, verified `Predictor`."""
