"""Data sets: a registry, their files verified, their images as uint8."""
