"""A simulated link for measurements of the allocator."""
