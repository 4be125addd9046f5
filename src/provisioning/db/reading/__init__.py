"""What the application reads. A page is a fixed number of statements, each served by an index and costing the same on every page."""
