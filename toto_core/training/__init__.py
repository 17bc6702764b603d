"""Trains toto-mini, the model that ships inside the package: ``python -m toto_core.training``."""
