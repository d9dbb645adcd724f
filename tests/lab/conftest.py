from dwcp_migrate.lab.fixtures import lab, shared_lab, start_guest

__all__ = ["lab", "shared_lab", "start_guest"]
