"""Work on labels with a trained model: which of them to check, and which frames to label next."""
