"""Pods: compile a run for hardware that is not here."""
