"""How fast Heed trains, next to other tools on the same rows, weights and dtype. Measures; asserts nothing."""

from heed.commands import let_threads_sleep

let_threads_sleep()  # all tools wait as Heed's scripts do; here since torch, which reads it, is imported by each module
