"""Read TIFF files that hold one picture."""
