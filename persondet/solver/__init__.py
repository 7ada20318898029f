"""Parameter groups, the optimizer and the schedule."""
