"""The page "Batch": one question about every picture of a folder."""
