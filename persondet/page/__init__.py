"""A page in the browser to try a model; needs Gradio (`pip install persondet[page]`)."""
