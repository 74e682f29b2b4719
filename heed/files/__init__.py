"""What a run leaves on the disk: names of files, whole or absent, lines that survive kills, locks, hashes."""
