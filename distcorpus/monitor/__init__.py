"""What people see of a cluster: status, dashboard, metrics, reports, the doctor (imports wire only)."""
