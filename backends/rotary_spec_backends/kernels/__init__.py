"""Kernels of single frameworks, and the geometry they share. Private: reached through a backend."""
