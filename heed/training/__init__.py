"""The plan of a run, the trainer, its speed, and what is checked before step 0. (Needs torch.)"""
