"""Who chooses which fields are imaged once more: one file each. A protocol names one of them, or somebody's own."""
