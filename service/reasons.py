"""Why a version was made: before any entry, of labels, of classes that were declared, by an act of an admin, or past one."""

INITIAL, UPDATE, CLASSES = "initial", "update", "classes"
ROLLBACK, FORGET, RELEASE, REFUSAL = "rollback", "forget", "release", "refusal"
