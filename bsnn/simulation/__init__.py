"""Simulation of a spiking network: running an engine over batches, reading out classes, counting operations."""
