"""What to expect of a memory plan: times, rates, machines, and how a plan is shown."""
