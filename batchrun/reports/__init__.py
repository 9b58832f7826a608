"""What the database says: one file for each question. Only reads; the same functions serve commands and pages."""
