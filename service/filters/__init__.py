"""Answers of some labels alone: which labels a request allows, and how the best of them are found.

A filter takes labels out of the answer that a query would get without it, were it asked for all labels. Those that are
left keep their scores and their order: ranks in calibration and re-ranking are ranks among all labels.
"""
