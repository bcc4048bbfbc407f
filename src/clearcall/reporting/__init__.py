"""Reports: Markdown pages, tables, charts and image comparisons from the JSON of the stages."""
