"""What tests and the chaos suite share: servers, processes, judges."""
