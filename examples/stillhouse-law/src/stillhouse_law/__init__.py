"""Knowledge distillation for law: how a court decides, from the facts of a case in words."""
