"""Answers on their way out: JSONL, CSV, a text file for each picture, and text that is safe to show."""
