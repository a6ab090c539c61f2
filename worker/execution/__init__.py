"""Run items: the scheduler, leases, attempts, checkpoints, and what watches over them."""
