"""The page "Memory": the plan as bars, and what is used just now."""
