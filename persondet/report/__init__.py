"""What a run folder tells, for people: the event log, plots and reports. Needs no torch."""
