"""Where items come from: folders and patterns of pictures, JSONL, CSV, lists of URLs, and rows in the job file."""
