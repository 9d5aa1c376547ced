"""Knowledge distillation for audio and vision: tagging, classification, cross-modal."""
