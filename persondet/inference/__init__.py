"""From a trained model to detections: predictor, masks, tracks, single images, stages of work."""
