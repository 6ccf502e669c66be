"""Methods that model or exploit the dynamics of training, one module each; `cmd` and `dmd` are packages of their own.

Everything that is not named with a leading underscore is public. Nothing here needs more of the harness than
`harness.method`, `harness.snapshots` and `harness.weights`, which need torch and numpy alone.
"""
