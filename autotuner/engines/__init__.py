"""Engines: families of models and how to run them; what is tuned, proven and served plugs in here."""
