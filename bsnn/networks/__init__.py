"""Trained networks: the VGG family, binary weights, their files, and checkpoints of the original's code."""
