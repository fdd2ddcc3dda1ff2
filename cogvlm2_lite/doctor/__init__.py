"""What this computer and this installation are like, in one report."""
