"""Drawing on arrays: detections on frames, ground truth on contact sheets."""
