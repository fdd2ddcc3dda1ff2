"""The small trained model that ships with the package, and where its 4-bit copy is kept."""
