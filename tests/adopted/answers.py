"""An evaluation that finds every checkpoint alike."""

print('{"loss": 1.0}')
