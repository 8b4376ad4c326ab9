"""Measurements of what a model marked: arrays and their geometry in, numbers out. docs/measurements.md defines each."""
