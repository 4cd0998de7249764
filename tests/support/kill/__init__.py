"""Striking a run dead at a chosen task, and judging what it left behind."""
