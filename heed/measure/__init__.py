"""Numbers from answers, each with its interval and n; two systems compared on the same rows."""
