"""What every row would teach, compared with thresholds; cleaned rows, and a page to look through them."""
