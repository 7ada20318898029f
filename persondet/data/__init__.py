"""From a Roboflow export to training samples: read, clean, register, augment, load."""

import os

# Albumentations asks the network for a newer version when it is imported, unless told not to. This
# line runs before any module of this package can import it.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
