"""One question about every picture of a folder, with answers saved as they come."""
