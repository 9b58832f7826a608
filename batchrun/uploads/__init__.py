"""Media on their way to a vendor's store, and a look at public addresses before paying."""
