"""Attachments on the model hub: two files and a card each. No other file is fetched, so no pickle can be.

``unipetl.push_to_hub`` writes there; ``unipetl.load(model, "user/name")`` reads.
"""
