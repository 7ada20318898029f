"""Leaks between splits: the same picture, or nearly the same, where it must not be."""
