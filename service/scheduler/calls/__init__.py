"""What is called and how: from the row of a call to its line in the log."""
