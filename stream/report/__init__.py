"""A run drawn for people: what happened, what was raised, as one HTML page or one picture."""
