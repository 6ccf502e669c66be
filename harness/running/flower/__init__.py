"""Flower as the transport between server and clients: a job is run in a ServerApp, its clients in ClientApps.

Nothing of Flower's decides what is trained: the loop, its records and how it goes on are a job's as on any engine, and
no Strategy of Flower's is used. `link` starts Flower's processes, `app` is what they run.
"""
