"""What the competitors run, each as its own documentation says."""
