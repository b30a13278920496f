"""Rows of data files, and the formats whose columns are told or mapped."""
