"""Encoders of images and of questions: from scratch, of torchvision, or pre-trained."""
