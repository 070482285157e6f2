"""The real services that the pipelines need, on this machine: started, awaited and stopped together."""
