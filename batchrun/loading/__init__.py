"""From a job file to rows: what each item asks for, what it will need, which of them are the same."""
