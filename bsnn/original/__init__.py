"""The original of Lu & Sengupta 2020: its checkpoints (`checkpoint`) and its command line (`command`)."""
