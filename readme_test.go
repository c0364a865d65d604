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

// TestReadme compiles the program of the README and reads the configuration files of
// it and of docs.
func TestReadme(t *testing.T) {
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, name := range append(names, "README.md") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	programs, configs := 0, 0
	for _, m := range codeBlock.FindAllStringSubmatch(string(text), -1) {
		switch language, code := m[1], m[2]; {
		case language == "go" && strings.HasPrefix(code, "package "):
			programs++
			file := filepath.Join(t.TempDir(), "main.go")
			write(t, file, code)
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("go vet: %v\n%s\n%s", err, out, code)
			}
			if out, err := exec.Command("gofmt", "-l", file).CombinedOutput(); err == nil && len(out) > 0 {
				t.Errorf("not formatted with gofmt:\n%s", code)
			}
		case language == "hcl" && strings.HasPrefix(code, "webhook "):
			configs++
			if _, err := Parse([]byte(code), "webhook.hcl"); err != nil {
				t.Errorf("%v\n%s", err, code)
			}
		}
	}
	if programs == 0 || configs == 0 {
		t.Errorf("%d programs and %d configurations in README.md and docs", programs, configs)
	}
}
