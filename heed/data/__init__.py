"""What a row means, where rows come from, and which split they fall into. Knows no tokenizer and no model."""
