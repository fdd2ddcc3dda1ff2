"""What differs by device: one module per backend behind one interface (`base.Backend`)."""
