"""`everlearn evaluate`: rows through the learning code, each predicted before it is learned from, beside its peers."""
