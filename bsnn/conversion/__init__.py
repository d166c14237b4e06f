"""From ANN to SNN: percentiles of activations, thresholds, the spiking network, and methods for few time steps."""
