"""The rotation on the CPU, for NumPy arrays and for PyTorch tensors that share their memory.

Two engines do the same arithmetic: `compiled`, a Numba kernel, and `blocked`, plain NumPy that
keeps a block in cache. `route` picks one; `threads` says how many threads it may use.
"""
