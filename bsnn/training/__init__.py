"""Training: the recipe as published, the loop over epochs, checkpoints within them, and the processes that share it."""
