"""What a run leaves on disk: names of files, whole or absent, lines that survive kills, locks, hashes."""
