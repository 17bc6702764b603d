"""The only place that compiles: calls of the decoder just in time, or ahead of time into packages on disk."""
