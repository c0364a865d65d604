package webhook

// NoSecret is for tests outside of the package.
var NoSecret = noSecret
