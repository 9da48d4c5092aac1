"""Image → maps of objects: one network behind any inverse model. Its settings load without torch."""
