"""Looking at an export: what is in it, what is wrong with it, and what cleaning does about that."""
