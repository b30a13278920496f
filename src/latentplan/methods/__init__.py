"""The methods: how a problem is laid out, what the model has, and what trains it; one file each."""
