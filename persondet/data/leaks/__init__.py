"""Leaks between splits: the same image, or nearly the same, where it must not be."""
