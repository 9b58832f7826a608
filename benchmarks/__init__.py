"""What a call costs in CPU, time and memory, beside a loop that stores nothing and beside the `openai` SDK."""
