"""What a person writes: job files and the templates in them, read once, at the door, with exact positions."""
