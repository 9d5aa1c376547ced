"""Heads of the field: answers to questions, classes as MedMNIST judges them, masks."""

from stillhouse_medicine.heads.classification import Binary, Multiclass, Multilabel
from stillhouse_medicine.heads.segmentation import Segmentation
from stillhouse_medicine.heads.vqa import VQA

__all__ = ["VQA", "Binary", "Multiclass", "Multilabel", "Segmentation"]
