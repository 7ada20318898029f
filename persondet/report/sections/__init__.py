"""The sections of the report, a file each; every one takes a `RunState` and returns a `Section`."""
