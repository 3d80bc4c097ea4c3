"""Settings for common models: each profile is a file that names what differs from params.yaml. `python -m assets.profiles` checks them.

What a setting means is in params.yaml and assets/params.py.
"""
