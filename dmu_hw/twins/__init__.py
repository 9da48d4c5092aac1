"""Devices without hardware that are processes of their own, spoken to over the same lines as real ones."""
