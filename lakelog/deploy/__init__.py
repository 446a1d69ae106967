"""Deployments of lakelog: recipes for clusters, and the programs that know a cluster.

A `Deployment` is rendered as a recipe for Kubernetes or Compose (`render`). `Kubectl` knows the
revisions of one in a cluster, a `ClusterStep` says which it is to have, and `Engine` knows the
containers of Docker or Podman.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.deploy.container import ENGINES, Container, Engine, read_container
    from lakelog.deploy.deployment import KINDS, Deployment, render, running_in
    from lakelog.deploy.kubectl import ClusterStep, Kubectl, Revision, return_to

__all__ = [
    "ENGINES",
    "KINDS",
    "ClusterStep",
    "Container",
    "Deployment",
    "Engine",
    "Kubectl",
    "Revision",
    "read_container",
    "render",
    "return_to",
    "running_in",
]

__getattr__ = lazy_face(
    __name__,
    container="Container ENGINES Engine read_container",
    deployment="Deployment KINDS render running_in",
    kubectl="ClusterStep Kubectl Revision return_to",
)
