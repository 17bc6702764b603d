"""The schema's revisions, oldest first by file name."""
