"""The real services that the pipelines need, on this machine: started, waited for and stopped together."""
