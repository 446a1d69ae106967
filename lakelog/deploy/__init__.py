"""Deployments of lakelog: recipes for clusters, and the programs that know a cluster.

A `Deployment` is rendered as a recipe for Kubernetes or Compose (`render`). `Kubectl` knows the
revisions of one in a cluster, a `ClusterStep` says which it is to have, and `Engine` knows the
containers of Docker or Podman.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.deploy.container import ENGINES as ENGINES
    from lakelog.deploy.container import Container as Container
    from lakelog.deploy.container import Engine as Engine
    from lakelog.deploy.container import read_container as read_container
    from lakelog.deploy.deployment import KINDS as KINDS
    from lakelog.deploy.deployment import Deployment as Deployment
    from lakelog.deploy.deployment import render as render
    from lakelog.deploy.deployment import running_in as running_in
    from lakelog.deploy.kubectl import ClusterStep as ClusterStep
    from lakelog.deploy.kubectl import Kubectl as Kubectl
    from lakelog.deploy.kubectl import Revision as Revision
    from lakelog.deploy.kubectl import return_to as return_to

__getattr__, __all__ = lazy_face(__name__)
