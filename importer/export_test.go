package importer

// Lock is the advisory lock of a batch.
const Lock = importLock

// What tests look at more closely.
var (
	ParseTime = parseTime
	MendText  = mendText
	MendLine  = mendLine
)
