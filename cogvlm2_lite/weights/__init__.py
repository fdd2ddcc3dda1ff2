"""Where weights come from: names, catalog, storage kinds, readers and writers."""
