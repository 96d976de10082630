"""What several tests and benchmarks use: models, images, services, and what damages them. No test lies here."""
