"""rbc-engine: red blood cells in microscope images, detected and classified at high throughput."""
