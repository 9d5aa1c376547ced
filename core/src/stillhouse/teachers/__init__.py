"""Teacher sources: where a teacher's signal comes from. To an objective all of them look alike: `Outputs` for a
`Batch`."""

from stillhouse.teachers.cached import CachedTeacher, StoredTeacher, write_cache
from stillhouse.teachers.ensemble import EnsembleTeacher
from stillhouse.teachers.estimator import EstimatorTeacher
from stillhouse.teachers.live import LiveTeacher
from stillhouse.teachers.source import AskedTeacher, CostedTeacher, PreparedTeacher, TeacherSource
from stillhouse.teachers.top_k import TopKTeacher, write_top_k

__all__ = [
    "AskedTeacher",
    "CachedTeacher",
    "CostedTeacher",
    "EnsembleTeacher",
    "EstimatorTeacher",
    "LiveTeacher",
    "PreparedTeacher",
    "StoredTeacher",
    "TeacherSource",
    "TopKTeacher",
    "write_cache",
    "write_top_k",
]
