"""The model of the pipeline: keys and paths of artifacts, checked reading, what is there, what it costs, exchange."""
