"""What is not needed any more, removed without anybody waiting for it."""
