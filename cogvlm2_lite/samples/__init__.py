"""Sample pictures and questions, from a folder or drawn, for calibration and comparison."""
