"""Speed and memory, measured against what people would do without this project."""
