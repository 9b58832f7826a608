"""What is written to the database: one file for each act. Every function takes a connection inside a transaction."""
