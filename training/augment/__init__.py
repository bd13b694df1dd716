"""Augmentations: functions from a data set to a larger one, named in a run's configuration."""
