"""Training: the loss of one step, the loop over epochs, and the fitting of estimators."""
