"""The four models that are offered to the benchmark; each folder is one container."""
