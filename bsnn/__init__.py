"""Binary and full-precision networks, converted to spiking networks and simulated exactly.

The modules stand in the direction in which data flows; each imports only from those before it: errors, config,
identity, provenance, artifacts, datasets, networks, binarize, training, percentiles, activations, thresholds, spiking,
switches, engines, readout, simulate, calibrate, methods, search, analysis, accounting, nir_graph, tables, drawing,
figures, report, stages, cli. Large rooms are packages.
"""

__version__ = "0.1.0"
