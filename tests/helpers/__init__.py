"""Fakes and small tools that several test packages share."""
