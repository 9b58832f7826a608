"""Long videos in parts: their times, and the merging of their answers."""
