"""Knowledge distillation for medicine: visual question answering, image classification and segmentation."""
