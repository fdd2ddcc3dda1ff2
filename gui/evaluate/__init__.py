"""The page "Evaluate": benchmarks that the open model is asked, and their scores."""
