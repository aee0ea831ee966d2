"""What a step of training costs: plain, with Ultralytics' own distillation, with ours, and where the time goes."""
