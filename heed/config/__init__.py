from heed.config.reader import *  # noqa: F403
