"""What holds a run back: limits and windows, and how it is said what holds it now."""
