"""Measure guards on labelled sets, and compare them with other filters."""
