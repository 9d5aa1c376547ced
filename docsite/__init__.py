"""What makes parts of the documentation: the page of recipe fields, the pictures, the gallery of reports."""
