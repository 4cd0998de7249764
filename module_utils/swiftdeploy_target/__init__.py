"""Pure logic of SwiftDeploy that Ansible ships to the hosts. Standard library only, Python 3.9 or later."""
