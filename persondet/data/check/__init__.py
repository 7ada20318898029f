"""What `prepare_dataset check` looks at and says."""
