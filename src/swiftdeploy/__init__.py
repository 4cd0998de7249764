"""Pure logic of SwiftDeploy that runs on the controller.

Nothing in this package imports Ansible; the plugins are thin adapters over it.
"""
