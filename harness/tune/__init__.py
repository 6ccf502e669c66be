"""Tuning with Optuna: one search per method on each model, dataset and optimizer, over the seeds of a suite.

A trial is a setting of a method, valued by validation data at the last epoch, averaged over seeds. It is no cell: it
leaves no record, and nothing on its way has a handle to the test split. Bases are trained once, on demand, and shared
with `run` and by all trials of all methods. What a trial then costs follows from the method's kind and cadence alone:
an observer of epochs or a reconstruction is a replay of stored snapshots, all candidates that watch optimizer steps
share one shadow run, a brancher trains from its restart state and may be pruned.

One coordinator asks and tells (`tuner`), jobs run on the engine (`workers`), and the study's storage is the truth.
"""
