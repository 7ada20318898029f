"""From a Roboflow export to training samples: read, clean, register, augment, load."""
