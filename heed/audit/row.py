"""What is known of a row after the scan: its numbers and flags."""

import numpy as np

# Bit i of a row's flags is FLAGS[i].
FLAGS = (
    "no_target",
    "eos_not_learned",
    "too_long",
    "cut_prompt",
    "cut_response",
    "little_learned",
    "double_bos",
    "boundary_merge",
    "control_tokens",
    "template_text",
    "placeholder",
    "duplicate",
    "near_duplicate",
    "conflicting_answers",
    "split_overlap",
    "near_split_overlap",
    "other_language",
    "odd_length",
    "contaminated",
    "unlike_training",
)


BIT = {name: np.uint32(1 << number) for number, name in enumerate(FLAGS)}


FAR_OUT = 3  # times the interquartile range beyond the quartiles, on a logarithmic scale (Tukey's outer fence)


ROW = np.dtype(
    [
        ("row_id", "i8"),
        ("file", "i4"),  # number of the part of its place before the line
        ("line", "i8"),
        ("row", "i8"),  # in files where rows are counted besides lines, otherwise -1
        ("source", "i2"),  # number of the split that the source puts it in
        ("split", "i1"),  # number in SPLITS, or UNUSED
        ("point", "f8"),
        ("content", "u8"),
        ("question", "u8"),
        ("answer", "u8"),
        ("tokens", "i4"),
        ("response_tokens", "i4"),
        ("learned_tokens", "i4"),
        ("lost_tokens", "i4"),  # learned tokens that max_length cut
        ("language", "i1"),
        ("flags", "u4"),
        ("like", "i8"),  # position of the row that a duplicate repeats, or -1
    ]
)
