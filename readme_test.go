package webhook

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var codeBlock = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// TestReadme compiles the README's program and reads its configuration files.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, configs := 0, 0
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		switch language, code := m[1], m[2]; {
		case language == "go" && strings.HasPrefix(code, "package "):
			programs++
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("go vet: %v\n%s\n%s", err, out, code)
			}
			if out, err := exec.Command("gofmt", "-l", file).CombinedOutput(); err == nil && len(out) > 0 {
				t.Errorf("not formatted with gofmt:\n%s", code)
			}
		case language == "hcl" && strings.Contains(code, "url ="):
			configs++
			if _, err := Parse([]byte(code), "README.md"); err != nil {
				t.Errorf("%v\n%s", err, code)
			}
		}
	}
	if programs == 0 || configs == 0 {
		t.Errorf("%d programs and %d configurations in the README", programs, configs)
	}
}
