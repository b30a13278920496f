"""Pictures of what a model does: drawn by matplotlib, written as PNG, SVG and data, shown in the report."""
