"""One training step and what it needs: mesh, objective, optimizer, checkpoints, metrics."""
