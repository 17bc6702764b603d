"""The predictors of other libraries over ``autotuner.load_pipeline``; importing autotuner imports none of them."""
