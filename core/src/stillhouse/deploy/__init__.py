"""What a finished run is for: predictions for new rows, and the student as a file for other programs."""
