"""Control a batch from outside, and tell of its end: pause, cancel, callbacks, webhooks."""
