"""The page "Memory": the plan as bars, and the RAM in use now."""
