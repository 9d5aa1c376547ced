"""Knowledge distillation for industry: remaining useful life and process faults."""
