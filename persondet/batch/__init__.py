"""Folders of clips and images: annotated once each, on this machine or on a Ray cluster."""
