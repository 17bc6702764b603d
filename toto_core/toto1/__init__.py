"""The Toto 1.0 architecture in PyTorch: its sizes, weights, layers, decoding and sampling, all uncompiled."""
