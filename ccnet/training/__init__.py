"""Training: recipe, losses, the trainer and the ablation study."""
