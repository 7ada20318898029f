"""What a run folder tells, for people: event series and plots. Needs neither torch nor Detectron2.

`plot_run` is in `persondet.report.plots`, because matplotlib takes a while to import.
"""

from persondet.report.events import Events, Series, load_events

__all__ = ["Events", "Series", "load_events"]
