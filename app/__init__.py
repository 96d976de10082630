"""The image classification service. Never imports `training`."""
