"""One module per group of endpoints. They parse, call the service and answer; errors just raise."""
