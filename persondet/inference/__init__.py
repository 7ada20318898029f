"""From a trained model to people: predictor, tracks, records, images."""
