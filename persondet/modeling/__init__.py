"""What is frozen, in which precision the model runs, and whose classes it speaks."""
