"""What runs say: results, statistics, tables, figures, the page."""
