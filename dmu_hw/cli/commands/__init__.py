"""Every command and its options. What a command does is loaded when it is called."""
