"""Memory: the plan, computed from sizes alone, and the code that carries it out."""
