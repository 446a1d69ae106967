"""Deployments of lakelog: recipes for clusters, and the programs that know a cluster."""
