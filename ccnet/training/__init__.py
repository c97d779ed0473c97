"""Training: recipes, losses, the trainer and the ablation study."""
