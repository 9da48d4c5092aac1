"""What an instrument can be measured by: one file each. A recipe names one of them, or somebody's own."""
