"""The numbers of a report: plain data, as it stands in the JSON file."""
