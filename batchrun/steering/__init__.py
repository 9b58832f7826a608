"""What operators do to jobs and limits while they run, and afterwards to costs that calls left open."""
