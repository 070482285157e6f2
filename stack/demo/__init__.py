"""`make demo`: from nothing to pipelines run by the scheduler: a module for each, and one that follows runs."""
