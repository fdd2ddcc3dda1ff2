"""What differs by device: one module per back end behind one interface (`base.Backend`)."""
