"""The page "Teach": trains an adapter from pictures with answers."""
