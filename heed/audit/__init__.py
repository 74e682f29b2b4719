"""What every row would teach, held against thresholds; cleaned rows, and a page to look through them."""
