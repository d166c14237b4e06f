"""What SLURM needs: signals handed on, shards kept for another try, training on several nodes."""
