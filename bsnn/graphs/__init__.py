"""Networks that are not of the VGG family: read from a torch module into one plain description, and run from it."""
