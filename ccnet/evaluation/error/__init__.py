"""The predicted error: its fit to the residuals of scenes, and how well it does on scenes that it was not fitted to."""
