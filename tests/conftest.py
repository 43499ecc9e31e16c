"""What holds for all tests: hypothesis on shared machines, where no draw has a time limit."""

import hypothesis

hypothesis.settings.register_profile(
    "shared",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    max_examples=300,
)
hypothesis.settings.load_profile("shared")
