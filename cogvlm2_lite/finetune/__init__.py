"""Teaching a model: adapters (LoRA) are trained next to frozen weights, which may be 4-bit."""
