"""Complete settings for common models, each a params.yaml to copy; `python -m assets.profiles` checks them and tells what they cost.

What a setting means is in params.yaml and assets/params.py.
"""
