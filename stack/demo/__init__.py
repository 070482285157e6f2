"""`make demo`: from nothing to pipelines that ran on the scheduler: a module for each, and one that follows runs."""
