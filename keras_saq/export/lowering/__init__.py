"""How each kind of Keras layer becomes kernels, one family per file."""
