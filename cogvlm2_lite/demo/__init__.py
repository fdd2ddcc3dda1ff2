"""The small trained model and the pictures that are included in the package."""
