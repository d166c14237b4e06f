"""Simulation engines behind one signature; see bsnn.engines.base."""
