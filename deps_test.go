package webhook

import (
	"os/exec"
	"strings"
	"testing"
)

// The integrations have packages of their own, so that a program which does
// not use them does not have their dependencies either.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.FieldsSeq(string(out)) {
		for _, optional := range []string{"prometheus", "opentelemetry.io", "nats-io", "google.golang.org"} {
			if strings.Contains(pkg, optional) {
				t.Errorf("the package depends on %s", pkg)
			}
		}
	}
}
