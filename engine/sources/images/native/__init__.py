"""Read with native libraries that are not trusted with a stranger's file: in a child process."""
