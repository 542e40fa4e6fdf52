"""Copulas, Gaussian-mixture marginals and their joint density: mathematics on tensors."""
