"""Pods: compile a run for hardware that is not here, begin one on many hosts, and again.

`train/` has templates for one big run, `study/` for the many of a study. docs/launching.md.
"""
