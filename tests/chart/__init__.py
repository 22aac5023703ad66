"""The Helm chart: what it renders, held against the schemas of Kubernetes, our own settings and its promises."""
