"""Labels that change while they are served: some disabled, some added from their texts, all of it kept in a journal.

What is kept hangs on a model's name, not on a version: a version that comes takes over what the one before it had. The
process that speaks HTTP decides and writes (`changes`, `journal`, `keeper`), each process that computes has its view of
the labels (`views`). A change is checked by all, written and only then seen by queries, so that what was acknowledged
is never lost and what failed was never served.
"""
