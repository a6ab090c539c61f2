"""Programs of the competitors, each as its own documentation says."""
