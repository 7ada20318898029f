"""The drawn sample: people who walk in a street, as an export and a clip with ground truth."""
